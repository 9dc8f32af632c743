import { Buffer } from "node:buffer";

/** Types of frames of HTTP/2 (RFC 9113, section 6). */
export const DATA = 0, HEADERS = 1, RST_STREAM = 3;
const SETTINGS = 4, WINDOW_UPDATE = 8;
const ACK = 1, END_STREAM = 1, END_HEADERS = 4;
const INITIAL_WINDOW_SIZE = 4;
const DEFAULT_WINDOW = 65_535;
/** The largest window that may be, bytes. */
export const MAX_WINDOW = 2 ** 31 - 1;

/** A frame of HTTP/2. */
export interface Frame {
  type: number;
  stream: number;
  payload: Buffer;
}

/** What {@linkcode UnreadClient.connect} is given. */
export interface UnreadClientOptions {
  port: number;
  /** Speaks TLS, and trusts this certificate. */
  certFile?: string;
  protocol: "h2" | "http/1.1";
}

/** A connection that reads, and gives window, only when it is told to; a library's client holds nothing back so exactly. */
export class UnreadClient implements Disposable {
  readonly #conn: Deno.Conn;
  #received = Buffer.alloc(0);

  private constructor(conn: Deno.Conn) {
    this.#conn = conn;
  }

  static async connect({ port, certFile, protocol }: UnreadClientOptions): Promise<UnreadClient> {
    const address = { hostname: "127.0.0.1", port };
    if (certFile === undefined) return new UnreadClient(await Deno.connect(address));
    const caCerts = [await Deno.readTextFile(certFile)];
    return new UnreadClient(await Deno.connectTls({ ...address, caCerts, alpnProtocols: [protocol] }));
  }

  async write(...pieces: (string | Uint8Array)[]): Promise<void> {
    let bytes: Uint8Array = Buffer.concat(pieces.map((piece) => Buffer.from(piece as string)));
    while (bytes.length > 0) bytes = bytes.subarray(await this.#conn.write(bytes));
  }

  /** Some of what has come, of at most so many bytes; undefined at the end, or when the connection was reset. */
  async read(bytes: number): Promise<Uint8Array | undefined> {
    const into = new Uint8Array(bytes);
    const length = await this.#conn.read(into).catch(() => null);
    return length === null ? undefined : into.subarray(0, length);
  }

  /** Reads until the connection is closed. */
  async drain(): Promise<void> {
    while (await this.read(1 << 20) !== undefined);
  }

  /** Begins HTTP/2: each stream gets so much window at first, and all together what there can be. */
  async begin(window: number): Promise<void> {
    const settings = Buffer.alloc(6);
    settings.writeUInt16BE(INITIAL_WINDOW_SIZE);
    settings.writeUInt32BE(window, 2);
    await this.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(SETTINGS, settings));
    await this.grant(0, MAX_WINDOW - DEFAULT_WINDOW);
    await this.write(frame(SETTINGS, "", { flags: ACK }));
  }

  /** Sends a request; one without a body is a GET. */
  async request(
    stream: number,
    { path, type, token, body }: { path: string; type?: string; token?: string; body?: Uint8Array },
  ) {
    const fields = {
      ":method": body ? "POST" : "GET",
      ":scheme": "http",
      ":path": path,
      ":authority": "localhost",
      ...type && { "content-type": type },
      ...token && { authorization: `Bearer ${token}` },
    };
    // Literals without indexing, with names of their own (RFC 7541, section 6.2.2).
    const block = Object.entries(fields).flatMap(([name, value]) => [
      Buffer.from([0, name.length]),
      Buffer.from(name),
      Buffer.from([value.length]),
      Buffer.from(value),
    ]);
    await this.write(
      frame(HEADERS, Buffer.concat(block), { stream, flags: END_HEADERS | (body ? 0 : END_STREAM) }),
    );
    if (body) await this.write(frame(DATA, body, { stream, flags: END_STREAM }));
  }

  /** Gives a stream, or with 0 all of them, so much more window. */
  async grant(stream: number, bytes: number): Promise<void> {
    const increment = Buffer.alloc(4);
    increment.writeUInt32BE(bytes);
    await this.write(frame(WINDOW_UPDATE, increment, { stream }));
  }

  /** The next frame; undefined at the end. */
  async frame(): Promise<Frame | undefined> {
    for (;;) {
      const { length } = this.#received;
      const end = length < 9 ? Infinity : 9 + this.#received.readUIntBE(0, 3);
      if (length >= end) {
        const [head, payload] = [this.#received.subarray(0, 9), this.#received.subarray(9, end)];
        this.#received = this.#received.subarray(end);
        return { type: head[3], stream: head.readUInt32BE(5), payload };
      }
      const more = await this.read(65_536);
      if (more === undefined) return undefined;
      this.#received = Buffer.concat([this.#received, more]);
    }
  }

  [Symbol.dispose](): void {
    this.#conn.close();
  }
}

function frame(type: number, payload: Uint8Array | string, { stream = 0, flags = 0 } = {}): Uint8Array {
  const head = Buffer.alloc(9), body = Buffer.from(payload as string);
  head.writeUIntBE(body.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, body]);
}
