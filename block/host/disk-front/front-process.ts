import { rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { messageOf, RingsteadError } from "../../../common/errors.ts";
import { signalProcess } from "../../../common/process-identity.ts";
import { UNDER_WAY_LIMIT_MS } from "../filling/patience.ts";
import { NbdConnection } from "../nbd-client.ts";
import { type FrontAnswer, type FrontRequest, linesOf, requestIn } from "./control.ts";
import { FuseFile } from "./fuse-file.ts";
import { incarnationIn } from "./incarnation.ts";
import { linkContent } from "./link-content.ts";
import { openMark } from "./mark-file.ts";
import { type Daemon, VolumeLink } from "./volume-link.ts";

type FrontOptions = {
  readonly disk: string;
  readonly nbdSocket: string;
  readonly control: string;
  /** The file that says what is not flushed (`unflushed-mark.ts`). */
  readonly mark: string;
  say(this: void, message: string): void;
};

type ShowRequest = Extract<FrontRequest, { do: "show" }>;
type Shown = { readonly exportName: string; readonly isReadOnly: boolean; readonly link: VolumeLink; isReady: boolean };

/** Who may ask at once: a host, and the next one while the first one ends. */
const CLIENTS_LIMIT = 8;

/** The daemon's export, asked without a limit of time: what was given up might be done all the same. */
const connected = async (nbdSocket: string, exportName: string): Promise<Daemon> => {
  const forEver = { answerLimitMs: Number.POSITIVE_INFINITY };
  const connection = await NbdConnection.opened(nbdSocket, exportName, [], forEver);
  const incarnation = incarnationIn(connection.description);
  if (incarnation === undefined) {
    connection[Symbol.dispose]();
    throw new RingsteadError("daemon-lost", "the export does not say whose it is");
  }
  return {
    incarnation,
    sizeBytes: connection.sizeBytes,
    get isOpen() {
      return connection.isOpen;
    },
    ask: (command, offset, length, bytes) => connection.ask(command, offset, length, bytes),
    [Symbol.dispose]: () => connection[Symbol.dispose](),
  };
};

/** The process that shows one volume as a file, and what its host asks of it. */
export class DiskFrontProcess implements AsyncDisposable {
  readonly #options: FrontOptions;
  readonly #server: Server;
  #shown: Shown | undefined;
  #file: FuseFile | undefined;
  #showing: Promise<void> = Promise.resolve();
  /** The last export whose process was ended. */
  #fenced: string | undefined;
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
      this.#showing = this.#showing.catch(() => undefined).then(() => this.#show(request));
      return this.#showing;
    }
    const link = this.#shown?.link;
    if (link === undefined) throw new RingsteadError("daemon-refused", "nothing is shown");
    if (request.do === "hold") {
      this.#holder = socket;
      return link.hold(UNDER_WAY_LIMIT_MS);
    }
    // An export that has got longer is another one: the connection to the one before is closed.
    if (request.do === "measure") return link.ready();
    this.#holder = undefined;
    link.letGo();
  }

  async #show({ exportName, isReadOnly, discards }: ShowRequest): Promise<void> {
    const { disk, nbdSocket, mark, say } = this.#options;
    this.#shown ??= {
      exportName,
      isReadOnly,
      isReady: false,
      link: new VolumeLink({
        connect: () => connected(nbdSocket, exportName),
        isReadOnly,
        discards,
        mark: isReadOnly ? undefined : openMark(mark, say),
        fence: ({ text, process: daemon }) => {
          if (this.#fenced !== text)
            say(`the volume's daemon ${daemon.pid} broke a connection with writes under way: it is ended`);
          this.#fenced = text;
          signalProcess(daemon, "SIGKILL");
        },
        say,
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
