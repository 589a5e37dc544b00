import { createConnection, type Socket } from "node:net";
import { RingsteadError } from "../common/errors.ts";

/* The NBD protocol as its proto.md has it: fixed newstyle, NBD_OPT_GO, simple replies. */
const OPTION_MAGIC = 0x49484156454f5054n;
const OPTION_REPLY_MAGIC = 0x3e889045565a9n;
const REQUEST_MAGIC = 0x25609513;
const REPLY_MAGIC = 0x67446698;
const FIXED_NEWSTYLE_WITHOUT_ZEROES = 3;
const OPTION_GO = 7;
const REPLY_ACK = 1;
const REPLY_INFO = 3;
const INFO_EXPORT = 0;
const REPLY_LIMIT_BYTES = 4096;
const COMMAND = { read: 0, write: 1, disconnect: 2, flush: 3 } as const;

const broken = (what: string): RingsteadError => new RingsteadError("nbd-failed", `the NBD server ${what}`);

/** One export of an NBD server on a Unix socket, one request at a time: enough to show that a volume works. */
export class NbdSession implements Disposable {
  readonly #socket: Socket;
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);
  sizeBytes = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#chunks = (socket as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  }

  /** Errors: "nbd-failed", Node's where nobody listens. */
  static async opened(socketPath: string, exportName: string): Promise<NbdSession> {
    const session = new NbdSession(createConnection({ path: socketPath }));
    await session.#negotiate(Buffer.from(exportName));
    return session;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    return this.#request(COMMAND.read, offset, length);
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    await this.#request(COMMAND.write, offset, bytes.length, bytes);
  }

  /** Resolves once everything that was written is on the disk. */
  async flush(): Promise<void> {
    await this.#request(COMMAND.flush, 0, 0);
  }

  [Symbol.dispose](): void {
    this.#socket.end(this.#header(COMMAND.disconnect, 0, 0));
  }

  async #negotiate(name: Buffer): Promise<void> {
    const greeting = await this.#take(18);
    if (greeting.toString("latin1", 0, 8) !== "NBDMAGIC" || greeting.readBigUInt64BE(8) !== OPTION_MAGIC)
      throw broken("is none");
    const option = Buffer.alloc(4 + 16 + 4 + name.length + 2);
    option.writeUInt32BE(FIXED_NEWSTYLE_WITHOUT_ZEROES, 0);
    option.writeBigUInt64BE(OPTION_MAGIC, 4);
    option.writeUInt32BE(OPTION_GO, 12);
    option.writeUInt32BE(4 + name.length + 2, 16);
    option.writeUInt32BE(name.length, 20);
    name.copy(option, 24);
    this.#socket.write(option);
    for (;;) {
      const head = await this.#take(20);
      const [type, length] = [head.readUInt32BE(12), head.readUInt32BE(16)];
      if (head.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC || length > REPLY_LIMIT_BYTES) throw broken("talks nonsense");
      const data = await this.#take(length);
      if (type === REPLY_ACK) return;
      if (type !== REPLY_INFO) throw broken(`refuses the export: ${data.toString()}`);
      if (data.readUInt16BE(0) === INFO_EXPORT) this.sizeBytes = Number(data.readBigUInt64BE(2));
    }
  }

  #header(command: number, offset: number, length: number): Buffer {
    const header = Buffer.alloc(28);
    header.writeUInt32BE(REQUEST_MAGIC, 0);
    header.writeUInt16BE(command, 6);
    header.writeBigUInt64BE(BigInt(offset), 16);
    header.writeUInt32BE(length, 24);
    return header;
  }

  async #request(command: number, offset: number, length: number, bytes?: Uint8Array): Promise<Buffer> {
    this.#socket.write(this.#header(command, offset, length));
    if (bytes !== undefined) this.#socket.write(bytes);
    const reply = await this.#take(16);
    if (reply.readUInt32BE(0) !== REPLY_MAGIC) throw broken("talks nonsense");
    const code = reply.readUInt32BE(4);
    if (code !== 0) throw broken(`answers with error ${code}`);
    return command === COMMAND.read ? this.#take(length) : Buffer.alloc(0);
  }

  async #take(length: number): Promise<Buffer> {
    const parts = [this.#rest];
    let have = this.#rest.length;
    while (have < length) {
      const { value, done } = await this.#chunks.next();
      if (done === true) throw broken("closed the connection");
      parts.push(value);
      have += value.length;
    }
    const all = Buffer.concat(parts);
    this.#rest = all.subarray(length);
    return all.subarray(0, length);
  }
}
