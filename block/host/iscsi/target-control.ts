import { createConnection } from "node:net";
import { RingsteadError } from "../../../common/errors.ts";
import { type ShownTarget, type TargetRequest, targetsIn } from "../core/iscsi-target.ts";
import { decodeTargetAnswer, encodeTargetRequest } from "./target-message.ts";

/** It answers at once, or after disks that do not answer either. */
const ANSWER_TIMEOUT_MS = 30_000;
const ANSWER_LIMIT_BYTES = 16 * 1024 * 1024;

const lost = (why: string): RingsteadError =>
  new RingsteadError("target-lost", `the iSCSI daemon does not answer: ${why}`);

/** Asks the daemon behind a control socket. Errors: "target-refused", "target-lost": whether it was done is not known. */
export const askTargetDaemon = (socketPath: string, request: TargetRequest): Promise<string> =>
  new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const socket = createConnection({ path: socketPath }, () => socket.write(encodeTargetRequest(request)));
    const timer = setTimeout(() => socket.destroy(lost("it takes too long")), ANSWER_TIMEOUT_MS);
    socket.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes > ANSWER_LIMIT_BYTES) socket.destroy(lost("it does not stop talking"));
    });
    socket.once("error", (error) => {
      clearTimeout(timer);
      reject(error instanceof RingsteadError ? error : lost(error.message));
    });
    socket.once("close", () => {
      clearTimeout(timer);
      try {
        resolve(decodeTargetAnswer(Buffer.concat(chunks), request));
      } catch (error) {
        reject(error instanceof Error ? error : lost(String(error)));
      }
    });
  });

/** Its targets as they are now. */
export const shownTargets = async (socketPath: string): Promise<readonly ShownTarget[]> =>
  targetsIn(await askTargetDaemon(socketPath, { mode: "target", operation: "show" }));
