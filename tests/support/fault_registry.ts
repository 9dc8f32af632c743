import { blobsOf, type TestBlob, type TestImage, type TestIndex } from "./images.ts";

/** A request as the registry saw it, and what it sent. */
export interface RegistryRequest {
  method: string;
  /** With the query. */
  path: string;
  kind: "manifest" | "blob" | "token" | "other";
  /** Of a manifest or blob: the tag or digest asked for. */
  target: string;
  /** How many requests for this kind and target came before. */
  attempt: number;
  /** First byte asked for by a `Range` header. */
  rangeStart?: number;
  headers: Record<string, string>;
  body: string;
  status: number;
  /** Body bytes that the kernel took. */
  bytesSent: number;
}

/** What goes wrong with a response. Byte counts are of the response's body. */
export type Fault =
  /** The connection ends after so many bytes. */
  | { kind: "break"; afterBytes: number }
  /** Nothing more comes after so many bytes, until the client hangs up or {@linkcode FaultRegistry.release}. */
  | { kind: "stall"; afterBytes: number }
  /** So many bytes at a time, with a pause after each. */
  | { kind: "drip"; chunkBytes: number; pauseMs: number }
  /** The byte at this place is another one. */
  | { kind: "corrupt"; at: number }
  /** More (or, negative, fewer) bytes than the descriptor says; the Content-Length agrees with them. */
  | { kind: "resize"; bytes: number }
  /** All of the content with status 200, whatever range was asked for. */
  | { kind: "ignore-range" }
  | { kind: "status"; status: number; headers?: Record<string, string>; body?: string }
  | { kind: "redirect"; status?: number; location: string }
  /** Other content in place of the right one. */
  | { kind: "replace"; bytes: Uint8Array; mediaType?: string };

/** What the registry asks of its clients. */
export type RegistryAuth =
  | { kind: "basic"; user: string; password: string }
  | {
    kind: "bearer";
    /** Without them anybody gets a token. */
    user?: string;
    password?: string;
    /** An identity token that is taken by POST. */
    identityToken?: string;
    /** `expires_in` of the tokens; none by default. */
    expiresInSeconds?: number;
  };

/** What {@linkcode startFaultRegistry} can be told. */
export interface FaultRegistryOptions {
  auth?: RegistryAuth;
  /** Decides each request's fault; see {@linkcode FaultRegistry.fault}. */
  fault?: (request: RegistryRequest) => Fault | undefined;
  /** Speak TLS with this certificate. */
  tls?: { cert: string; key: string };
}

interface Answer {
  status: number;
  headers: Record<string, string>;
  body: Uint8Array;
}

const MAX_HEAD_BYTES = 64 << 10;
const WRITE_BYTES = 64 << 10;
const TOKEN_SERVICE = "fault-registry";

/**
 * Starts an in-process registry on a free loopback port that serves images from memory, misbehaves as told, and keeps
 * account of every request. It speaks HTTP/1.1 by hand over TCP, so that it can also break its rules.
 *
 * @example
 * ```ts ignore
 * await using registry = startFaultRegistry();
 * const reference = registry.add(busyboxImage(), "test/web:1");
 * registry.fault = ({ kind, attempt }) =>
 *   kind === "blob" && attempt === 0 ? { kind: "break", afterBytes: 1000 } : undefined;
 * ```
 */
export function startFaultRegistry(options: FaultRegistryOptions = {}): FaultRegistry {
  return new FaultRegistry(options);
}

/** A registry that misbehaves; see {@linkcode startFaultRegistry}. */
export class FaultRegistry implements AsyncDisposable {
  /** `127.0.0.1:port`, as a reference names it. */
  readonly host: string;
  readonly baseUrl: string;
  /** In the order in which they came; entries are filled while they are served. */
  readonly requests: RegistryRequest[] = [];
  /** May be set between requests. */
  fault: (request: RegistryRequest) => Fault | undefined;
  readonly #auth: RegistryAuth | undefined;
  readonly #listener: Deno.Listener;
  readonly #blobs = new Map<string, TestBlob>();
  readonly #manifests = new Map<string, TestBlob>();
  readonly #tokens = new Set<string>();
  readonly #connections = new Map<Deno.Conn, Promise<void>>();
  readonly #accepting: Promise<void>;
  #released = Promise.withResolvers<void>();

  constructor(options: FaultRegistryOptions) {
    this.#auth = options.auth;
    this.fault = options.fault ?? (() => undefined);
    const address = { hostname: "127.0.0.1", port: 0 };
    this.#listener = options.tls
      ? Deno.listenTls({ ...address, ...options.tls, alpnProtocols: ["http/1.1"] })
      : Deno.listen(address);
    this.host = `127.0.0.1:${(this.#listener.addr as Deno.NetAddr).port}`;
    this.baseUrl = `${options.tls ? "https" : "http"}://${this.host}`;
    this.#accepting = this.#accept();
  }

  /** Serves an image or index as `repository:tag` and by digest; gives the reference to pull it by. */
  add(image: TestImage | TestIndex, name: string): string {
    const colon = name.lastIndexOf(":");
    const repository = name.slice(0, colon);
    for (const blob of blobsOf(image)) {
      const isManifest = blob === image.manifest ||
        (image.kind === "index" && image.images.some((one) => one.manifest === blob));
      if (isManifest) this.#manifests.set(`${repository}/${blob.digest}`, blob);
      else this.#blobs.set(blob.digest, blob);
    }
    this.#manifests.set(`${repository}/${name.slice(colon + 1)}`, image.manifest);
    return `${this.host}/${name}`;
  }

  /** Body bytes sent for a kind of request, or for one digest. */
  bytesSent(filter: { kind?: RegistryRequest["kind"]; target?: string } = {}): number {
    return this.matching(filter).reduce((sum, request) => sum + request.bytesSent, 0);
  }

  /** The requests of a kind, or for one digest. */
  matching(filter: { kind?: RegistryRequest["kind"]; target?: string }): RegistryRequest[] {
    return this.requests.filter((request) =>
      (filter.kind === undefined || request.kind === filter.kind) &&
      (filter.target === undefined || request.target === filter.target)
    );
  }

  /** Makes every token given out so far invalid. */
  revokeTokens(): void {
    this.#tokens.clear();
  }

  /** Lets stalled responses go on, those of now and those to come. */
  release(): void {
    this.#released.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.release();
    this.#listener.close();
    await this.#accepting;
    for (const connection of this.#connections.keys()) close(connection);
    await Promise.all(this.#connections.values());
  }

  async #accept(): Promise<void> {
    try {
      for await (const connection of this.#listener) {
        const served = this.#serve(connection).finally(() => this.#connections.delete(connection));
        this.#connections.set(connection, served);
      }
    } catch (error) {
      // A listener that closes while it waits says so in one of these ways.
      if (!(error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted)) {
        throw error;
      }
    }
  }

  /** One request and one response on each connection. */
  async #serve(connection: Deno.Conn): Promise<void> {
    try {
      const request = await readRequest(connection);
      if (request === undefined) return;
      request.attempt = this.matching({ kind: request.kind, target: request.target }).length;
      this.requests.push(request);
      await this.#respond(connection, request);
    } catch (error) {
      if (!isHangUp(error)) throw error;
    } finally {
      close(connection);
    }
  }

  async #respond(connection: Deno.Conn, request: RegistryRequest): Promise<void> {
    const fault = this.fault(request);
    const answer = this.#answer(request, fault);
    request.status = answer.status;
    const lines = Object.entries({ ...answer.headers, connection: "close" }).map(([name, value]) =>
      `${name}: ${value}\r\n`
    );
    await write(
      connection,
      new TextEncoder().encode(`HTTP/1.1 ${answer.status} Test\r\n${lines.join("")}\r\n`),
    );
    if (request.method === "HEAD") return;
    const limit = fault?.kind === "break" || fault?.kind === "stall"
      ? Math.min(fault.afterBytes, answer.body.length)
      : answer.body.length;
    const chunk = fault?.kind === "drip" ? fault.chunkBytes : WRITE_BYTES;
    for (let offset = 0; offset < answer.body.length;) {
      if (offset >= limit) {
        if (fault?.kind !== "stall") return;
        await Promise.race([this.#released.promise, hungUp(connection)]);
      }
      const end = Math.min(offset + chunk, offset < limit ? limit : answer.body.length);
      await write(connection, answer.body.subarray(offset, end));
      request.bytesSent += end - offset;
      offset = end;
      if (fault?.kind === "drip") await new Promise((resolve) => setTimeout(resolve, fault.pauseMs));
    }
  }

  #answer(request: RegistryRequest, fault: Fault | undefined): Answer {
    if (fault?.kind === "status") {
      return answer(fault.status, new TextEncoder().encode(fault.body ?? ""), fault.headers);
    }
    if (request.kind === "token") return this.#token(request);
    const challenge = this.#challenge(request);
    if (challenge !== undefined) return answer(401, undefined, { "www-authenticate": challenge });
    if (fault?.kind === "redirect") {
      return answer(fault.status ?? 307, undefined, { location: fault.location });
    }
    const found = request.kind === "blob"
      ? this.#blobs.get(request.target)
      : this.#manifests.get(`${repositoryOf(request.path)}/${request.target}`);
    if (found === undefined) return answer(404, new TextEncoder().encode('{"errors":[]}'));
    return content(request, fault, found);
  }

  /** The challenge for a request that lacks what the registry asks for. */
  #challenge(request: RegistryRequest): string | undefined {
    const authorization = request.headers.authorization;
    if (this.#auth?.kind === "basic") {
      const isRight = authorization === `Basic ${btoa(`${this.#auth.user}:${this.#auth.password}`)}`;
      return isRight ? undefined : 'Basic realm="test"';
    }
    if (this.#auth?.kind === "bearer") {
      const scope = `repository:${repositoryOf(request.path)}:pull`;
      const token = authorization?.replace("Bearer ", "") ?? "";
      return this.#tokens.has(`${scope} ${token}`)
        ? undefined
        : `Bearer realm="${this.baseUrl}/token",service="${TOKEN_SERVICE}",scope="${scope}"`;
    }
    return undefined;
  }

  #token(request: RegistryRequest): Answer {
    const auth = this.#auth;
    if (auth?.kind !== "bearer") return answer(404);
    const query = request.method === "POST"
      ? new URLSearchParams(request.body)
      : new URL(request.path, this.baseUrl).searchParams;
    if (query.get("service") !== TOKEN_SERVICE) return answer(400);
    const isAllowed = request.method === "POST"
      ? query.get("grant_type") === "refresh_token" && query.get("refresh_token") === auth.identityToken
      : auth.user === undefined ||
        request.headers.authorization === `Basic ${btoa(`${auth.user}:${auth.password}`)}`;
    if (!isAllowed) return answer(401);
    const token = crypto.randomUUID();
    this.#tokens.add(`${query.get("scope")} ${token}`);
    const body = {
      [request.method === "POST" ? "access_token" : "token"]: token,
      ...(auth.expiresInSeconds === undefined ? {} : { expires_in: auth.expiresInSeconds }),
    };
    return answer(200, new TextEncoder().encode(JSON.stringify(body)), {
      "content-type": "application/json",
    });
  }
}

function answer(
  status: number,
  body: Uint8Array = new Uint8Array(),
  headers: Record<string, string> = {},
): Answer {
  return { status, headers: { ...headers, "content-length": String(body.length) }, body };
}

function content(request: RegistryRequest, fault: Fault | undefined, blob: TestBlob): Answer {
  let { bytes, mediaType }: { bytes: Uint8Array; mediaType: string } = blob;
  if (fault?.kind === "corrupt") {
    bytes = bytes.slice();
    bytes[fault.at] ^= 0xff;
  }
  if (fault?.kind === "resize") {
    const resized = new Uint8Array(bytes.length + fault.bytes);
    resized.set(bytes.subarray(0, resized.length));
    bytes = resized;
  }
  if (fault?.kind === "replace") ({ bytes, mediaType = mediaType } = fault);
  const start = fault?.kind === "ignore-range" ? undefined : request.rangeStart;
  const headers = { "content-type": request.kind === "blob" ? "application/octet-stream" : mediaType };
  if (start === undefined) return answer(200, bytes, headers);
  if (start >= bytes.length) {
    return answer(416, undefined, { "content-range": `bytes */${bytes.length}` });
  }
  return answer(206, bytes.subarray(start), {
    ...headers,
    "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}`,
  });
}

function repositoryOf(path: string): string {
  return /\/v2\/(.+)\/(?:manifests|blobs)\//.exec(path)?.[1] ?? "";
}

async function readRequest(connection: Deno.Conn): Promise<RegistryRequest | undefined> {
  let text = "";
  const buffer = new Uint8Array(8192);
  const decoder = new TextDecoder("latin1");
  const more = async () => {
    const count = await connection.read(buffer);
    if (count === null || text.length > MAX_HEAD_BYTES) return false;
    text += decoder.decode(buffer.subarray(0, count));
    return true;
  };
  while (!text.includes("\r\n\r\n")) {
    if (!await more()) return undefined;
    // A TLS handshake, most likely: like other servers of plain HTTP, hang up.
    if (!/^[A-Z]/.test(text)) return undefined;
  }
  const bodyStart = text.indexOf("\r\n\r\n") + 4;
  const [line, ...fields] = text.slice(0, bodyStart - 4).split("\r\n");
  const headers = Object.fromEntries(fields.map((field) => {
    const colon = field.indexOf(":");
    return [field.slice(0, colon).toLowerCase(), field.slice(colon + 1).trim()];
  }));
  while (text.length < bodyStart + Number(headers["content-length"] ?? 0)) {
    if (!await more()) return undefined;
  }
  const [method, path] = line.split(" ");
  const found = /\/v2\/.+\/(manifest|blob)s\/([^/?]+)/.exec(path);
  const range = /^bytes=(\d+)-/.exec(headers.range ?? "");
  return {
    method,
    path,
    kind: found ? found[1] as "manifest" | "blob" : path.startsWith("/token") ? "token" : "other",
    target: found?.[2] ?? "",
    attempt: 0,
    ...(range ? { rangeStart: Number(range[1]) } : {}),
    headers,
    body: text.slice(bodyStart),
    status: 0,
    bytesSent: 0,
  };
}

async function write(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let offset = 0; offset < bytes.length;) {
    offset += await connection.write(bytes.subarray(offset));
  }
}

/** Resolves when the client closes; clients send nothing after their request. */
async function hungUp(connection: Deno.Conn): Promise<void> {
  try {
    while (await connection.read(new Uint8Array(512)) !== null);
  } catch (error) {
    if (!isHangUp(error)) throw error;
  }
}

function isHangUp(error: unknown): boolean {
  return error instanceof Deno.errors.BrokenPipe || error instanceof Deno.errors.ConnectionReset ||
    error instanceof Deno.errors.ConnectionAborted || error instanceof Deno.errors.BadResource ||
    error instanceof Deno.errors.Interrupted || error instanceof Deno.errors.UnexpectedEof ||
    error instanceof Deno.errors.NotConnected || error instanceof Deno.errors.InvalidData;
}

function close(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch (error) {
    if (!(error instanceof Deno.errors.BadResource)) throw error;
  }
}
