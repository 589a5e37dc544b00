import { rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { messageOf, RingsteadError } from "../../../common/errors.ts";
import { NbdConnection } from "../nbd-client.ts";
import { type FrontAnswer, type FrontRequest, linesOf, requestIn } from "./control.ts";
import { FuseFile } from "./fuse-file.ts";
import { linkContent } from "./link-content.ts";
import { VolumeLink } from "./volume-link.ts";

type FrontOptions = {
  readonly disk: string;
  readonly nbdSocket: string;
  readonly control: string;
  say(this: void, message: string): void;
};

type Shown = { readonly exportName: string; readonly isReadOnly: boolean; readonly link: VolumeLink; isReady: boolean };

/** Who may ask at once: a host, and the next one while the first one ends. */
const CLIENTS_LIMIT = 8;

/** The process that shows one volume as a file, and what its host asks of it. */
export class DiskFrontProcess implements AsyncDisposable {
  readonly #options: FrontOptions;
  readonly #server: Server;
  #shown: Shown | undefined;
  #file: FuseFile | undefined;
  #showing: Promise<void> = Promise.resolve();
  /** Who held it last: what it holds, nobody waits for once it is gone. */
  #holder: Socket | undefined;

  private constructor(options: FrontOptions) {
    this.#options = options;
    this.#server = createServer((socket) => this.#serve(socket));
    this.#server.maxConnections = CLIENTS_LIMIT;
  }

  /** Resolves once it can be asked. */
  static async started(options: FrontOptions): Promise<DiskFrontProcess> {
    const front = new DiskFrontProcess(options);
    rmSync(options.control, { force: true });
    await new Promise<void>((resolve, reject) => {
      front.#server.once("error", reject);
      front.#server.listen(options.control, resolve);
    });
    return front;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    await this.#file?.unmount().catch((error: unknown) => this.#options.say(messageOf(error)));
    await this.#shown?.link[Symbol.asyncDispose]();
  }

  #serve(socket: Socket): void {
    socket.on("error", () => socket.destroy());
    socket.once("close", () => {
      if (this.#holder !== socket) return;
      this.#holder = undefined;
      this.#shown?.link.letGo();
    });
    let last: Promise<void> = Promise.resolve();
    linesOf(socket, (line) => {
      last = last.then(() => this.#answer(socket, line));
    });
  }

  async #answer(socket: Socket, line: string): Promise<void> {
    let failure: string | undefined;
    try {
      await this.#do(socket, requestIn(line));
    } catch (error) {
      failure = messageOf(error);
    }
    const answer: FrontAnswer = {
      isShown: this.#shown?.isReady === true,
      sizeBytes: this.#shown?.link.sizeBytes ?? 0,
      ...(failure === undefined ? {} : { failure }),
    };
    socket.write(`${JSON.stringify(answer)}\n`);
  }

  async #do(socket: Socket, request: FrontRequest): Promise<void> {
    if (request.do === "show") {
      this.#showing = this.#showing
        .catch(() => undefined)
        .then(() => this.#show(request.exportName, request.isReadOnly));
      return this.#showing;
    }
    const link = this.#shown?.link;
    if (link === undefined) throw new RingsteadError("daemon-refused", "nothing is shown");
    if (request.do === "hold") {
      this.#holder = socket;
      return link.hold();
    }
    if (request.do === "measure") await link.hold();
    this.#holder = undefined;
    link.letGo();
    if (request.do === "measure") await link.ready();
  }

  async #show(exportName: string, isReadOnly: boolean): Promise<void> {
    const { disk, nbdSocket, say } = this.#options;
    this.#shown ??= {
      exportName,
      isReadOnly,
      isReady: false,
      link: new VolumeLink({
        connect: () => NbdConnection.opened(nbdSocket, exportName, []),
        isReadOnly,
        onLost: say,
      }),
    };
    const shown = this.#shown;
    if (shown.exportName !== exportName || shown.isReadOnly !== isReadOnly)
      throw new RingsteadError("daemon-refused", "the volume is shown in another way already");
    if (shown.isReady) return;
    await shown.link.ready();
    this.#file = await FuseFile.mounted(disk, linkContent(shown.link, isReadOnly));
    shown.isReady = true;
    void this.#file.closed.then(() => process.kill(process.pid, "SIGTERM"));
  }
}
