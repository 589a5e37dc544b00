import { blockError } from "../core/block-error.ts";
import type { BlockTransaction } from "../store/schema.ts";
import { attachmentsOf, type Volume } from "../store/volumes.ts";
import type { BlockContext } from "./block-route.ts";

/**
 * What takes a volume's content away, or replaces it, is refused under an export that an operator has open, which no attachment tells of. The host
 * refuses it as well, for one that is opened after this. Throws `invalid-state`.
 */
export const refuseWhileOpen = async ({ operatorExports }: BlockContext, { id, backend }: Volume): Promise<void> => {
  if (backend === null || !(await operatorExports.look(id, backend))) return;
  throw blockError(
    "invalid-state",
    `Invalid volume: Volume ${id} is exported by an operator of its host (ringstead volume unexport).`,
  );
};

/**
 * The same for connections that no attachment tells of: os-initialize_connection opens a volume whose status says nothing of it. In the transaction
 * that announces what is to be done. Throws `invalid-state`.
 */
export const refuseWhileConnected = async (transaction: BlockTransaction, { id }: Volume): Promise<void> => {
  if ((await attachmentsOf(transaction, id)).every((one) => one.connector_json === null)) return;
  throw blockError(
    "invalid-state",
    `Invalid volume: Volume ${id} has connections that are open: terminate these first.`,
  );
};
