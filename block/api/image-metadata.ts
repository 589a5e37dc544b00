import { Type } from "typebox";
import { withTransaction } from "../../common/sql/transaction.ts";
import { notFound } from "../core/block-error.ts";
import { pairsOf, removePairs, writePairs } from "../store/pairs.ts";
import { volumeForChange } from "../store/volumes.ts";
import { action, type Actions } from "./volume-action.ts";
import { checkMetadataCount, metadataSchema } from "./volume-fields.ts";

const POLICY = "volume_extension:volume_image_metadata";
const TABLE = "volume_image_metadata";

/** What the image that a volume was made of said of itself, and what servers are told who boot from it. */
export const IMAGE_METADATA_ACTIONS: Actions = {
  "os-set_image_metadata": action(
    `${POLICY}:set`,
    Type.Object({ metadata: metadataSchema }),
    async ({ metadata: change }, { context, volume: { id } }) => {
      const metadata = await withTransaction(context.writer, async (transaction) => {
        await volumeForChange(transaction, id);
        await writePairs(transaction, TABLE, id, change, false);
        const all = await pairsOf(transaction, TABLE, id);
        checkMetadataCount(all);
        return all;
      });
      return { status: 200, body: { metadata } };
    },
  ),
  "os-show_image_metadata": action(`${POLICY}:show`, Type.Unknown(), async (_argument, { context, volume }) => ({
    status: 200,
    body: { metadata: await pairsOf(context.database, TABLE, volume.id) },
  })),
  "os-unset_image_metadata": action(
    `${POLICY}:remove`,
    Type.Object({ key: Type.String({ minLength: 1, maxLength: 255 }) }),
    async ({ key }, { context, volume: { id } }) => {
      const count = await removePairs(context.writer, TABLE, id, [key]);
      if (count === 0) throw notFound(`Volume ${id} has no metadata with key`, key);
      return { status: 200 };
    },
  ),
};
