import { join } from "node:path";

/** Files of the control side of the block service, in its folder of DIR. */
export type BlockPaths = { readonly root: string; readonly database: string; readonly backupKey: string };

export const blockPaths = (root: string): BlockPaths => ({
  root,
  database: join(root, "block.db"),
  backupKey: join(root, "backup.key"),
});
