import { createServer } from "node:net";

const HOST = "127.0.0.1";

const listenOnce = (port: number): Promise<number | undefined> =>
  new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(undefined));
    server.listen(port, HOST, () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : undefined));
    });
  });

/** Whether nobody listens on `port` of 127.0.0.1 now. */
export const isFree = async (port: number): Promise<boolean> => (await listenOnce(port)) !== undefined;

/** A port of 127.0.0.1 that nobody listens on now. */
export const freePort = async (): Promise<number> => {
  const port = await listenOnce(0);
  if (port === undefined) throw new Error(`no free port on ${HOST}`);
  return port;
};
