import { Buffer } from "node:buffer";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import { Code, type ConnectRouter, createConnectRouter } from "@connectrpc/connect";
import {
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from "@connectrpc/connect-node";
import type { Log } from "../../runtime/log.ts";
import { type GuardPolicy, judge } from "../security/guard.ts";
import { type CallOutcome, codeName, countCalls } from "./count_calls.ts";
import { encodeGrpcMessage } from "./grpc_message.ts";
import { translateErrors } from "./errors.ts";
import { ConnectionRoom } from "./room.ts";
import { parseStrictJson } from "./strict_json.ts";

/** Largest message a client may send, bytes: an environment of the largest size, or a piece of an image. */
export const MAX_MESSAGE_BYTES = 4 << 20;
/** Longest piece of an answer that is written at once, bytes: of a longer one nobody could see that it is being taken. */
const PIECE_BYTES = 65_536;
/** Longest deadline a client may ask for, milliseconds. */
export const MAX_DEADLINE_MS = 24 * 3_600_000;

type Request = IncomingMessage | Http2ServerRequest;
type Response = ServerResponse | Http2ServerResponse;
type UniversalResponse = Parameters<typeof universalResponseToNodeResponse>[0];
type UniversalHandler = ReturnType<typeof createConnectRouter>["handlers"][number];

/** What {@linkcode apiHandler} is given. */
export interface ApiHandlerOptions {
  routes: (router: ConnectRouter) => void;
  guard: GuardPolicy;
  log: Log;
  /** Told how each call ended. */
  count?: (outcome: CallOutcome) => void;
  /** Ends every call when it aborts. */
  shutdown: AbortSignal;
}

/** Answers a request. `accepted` is called as soon as it is known that its client may call; of anybody else it is not. */
export type ApiHandler = (request: Request, response: Response, accepted?: () => void) => void;

/** Answers gRPC, gRPC-Web and Connect on node:http and node:http2. */
export function apiHandler(options: ApiHandlerOptions): ApiHandler {
  const { guard, log, count = () => {} } = options;
  const router = createConnectRouter({
    acceptCompression: [compressionGzip],
    readMaxBytes: MAX_MESSAGE_BYTES,
    maxTimeoutMs: MAX_DEADLINE_MS,
    jsonOptions: { ignoreUnknownFields: false },
    shutdownSignal: options.shutdown,
    interceptors: [countCalls(count), translateErrors(log)],
  });
  options.routes(router);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  const room = new ConnectionRoom();
  return (request, response, accepted = () => {}) => {
    answer(request, response, { guard, handlers, room, count, accepted }).catch((error) => {
      // What breaks off is the client's doing; the rest was translated before it got here.
      log.debug("a call ended early", { error: String(error) });
      response.destroy();
    });
  };
}

async function answer(
  request: Request,
  response: Response,
  options: {
    guard: GuardPolicy;
    handlers: ReadonlyMap<string, UniversalHandler>;
    room: ConnectionRoom;
    count: (outcome: CallOutcome) => void;
    accepted: () => void;
  },
): Promise<void> {
  const refuse = (error: Refusal) => {
    options.count({ method: "-", code: codeName(error.code) });
    answerRefusal(request, response, error);
  };
  const { headers } = request;
  const refusal = judge({
    host: ("authority" in request ? request.authority : undefined) ?? headers.host,
    origin: headers.origin,
    fetchSite: text(headers["sec-fetch-site"]),
    authorization: headers.authorization,
  }, options.guard);
  if (refusal !== undefined) {
    const code = refusal.kind === "unauthenticated" ? Code.Unauthenticated : Code.PermissionDenied;
    return refuse({ code, message: refusal.reason });
  }
  options.accepted();
  const path = (request.url ?? "").split("?", 1)[0];
  const handler = options.handlers.get(path);
  if (handler === undefined) {
    return refuse({
      code: Code.Unimplemented,
      message: "Cannot find this method on the agent",
    });
  }
  if (request.method !== "POST") {
    return refuse({
      code: Code.Unimplemented,
      status: 405,
      message: `Cannot answer ${request.method}: API methods are called by POST`,
    });
  }
  let body: unknown;
  if (isPlainJson(request)) {
    const problem = await readJson(request).then((value) => void (body = value), (error: Error) => error);
    if (problem instanceof TooLarge) {
      return refuse({
        code: Code.ResourceExhausted,
        status: 413,
        message: problem.message,
      });
    }
    if (problem !== undefined) {
      const message = `Cannot read the request body: ${problem.message}`;
      return refuse({ code: Code.InvalidArgument, message });
    }
  } else if (!/^application\/(grpc|proto|json|connect)/.test(headers["content-type"] ?? "")) {
    return refuse({
      code: Code.InvalidArgument,
      status: 415,
      message:
        "Cannot read the request body: send content-type application/json (or proto, grpc, grpc-web, connect)",
    });
  }
  const universal = universalRequestFromNodeRequest(request, response, body as never, undefined);
  const answered = respelled(await handler(universal));
  const wait = "stream" in response ? () => options.room.wait(response) : () => {};
  const pieces = answered.body && inPieces(answered.body, wait);
  // A write that was under way then may never come back, and its source would be held for ever.
  response.once("close", () => pieces?.return(undefined).catch(() => {}));
  await universalResponseToNodeResponse({ ...answered, body: pieces }, response);
}

/** The answer with its gRPC error text encoded as {@linkcode encodeGrpcMessage} has it; the library encodes too much. */
function respelled(answer: UniversalResponse): UniversalResponse {
  const { trailer, body } = answer;
  if (trailer === undefined) return answer;
  const respell = () => {
    const message = trailer.get("grpc-message");
    if (message !== null) trailer.set("grpc-message", encodeGrpcMessage(decodeURIComponent(message)));
  };
  if (body === undefined || body instanceof Uint8Array) {
    respell();
    return answer;
  }
  // The trailer is known at the end of the body.
  return { ...answer, body: followedBy(body, respell) };
}

async function* followedBy<T>(body: AsyncIterable<T>, then: () => void): AsyncGenerator<T> {
  yield* body;
  then();
}

/** The same in pieces that are not too long, each when it may go. */
async function* inPieces(body: AsyncIterable<Uint8Array>, wait: () => Promise<void> | void) {
  for await (const chunk of body) {
    for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
      await wait();
      yield chunk.subarray(at, at + PIECE_BYTES);
    }
  }
}

class TooLarge extends Error {}

/** A unary Connect call in JSON, not compressed: its body is checked as a whole. */
function isPlainJson({ headers }: Request): boolean {
  const encoding = headers["content-encoding"] ?? "identity";
  return /^application\/json(;|$)/i.test(headers["content-type"] ?? "") && encoding === "identity";
}

async function readJson(request: Request): Promise<unknown> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Uint8Array>) {
    length += chunk.length;
    if (length > MAX_MESSAGE_BYTES) {
      throw new TooLarge(`Cannot read the request body: at most ${MAX_MESSAGE_BYTES} bytes`);
    }
    chunks.push(chunk);
  }
  const value = parseStrictJson(Buffer.concat(chunks, length));
  if (value === null) throw new Error("it is null, an object is needed");
  return value;
}

/** Why a request is no call. */
interface Refusal {
  code: Code;
  message: string;
  /** Of HTTP, where the code does not say it. */
  status?: number;
}

/** Answers in the protocol of the caller: gRPC has its own status, everybody else reads HTTP's. */
function answerRefusal(request: Request, response: Response, error: Refusal): void {
  const type = request.headers["content-type"] ?? "";
  const answer = response as ServerResponse;
  if (/^application\/grpc/.test(type)) {
    const status = { "grpc-status": String(error.code), "grpc-message": encodeGrpcMessage(error.message) };
    // Stock clients take a status in the head only when the head ends the stream, which cannot be had here.
    const isTrailed = !/^application\/grpc-web/.test(type);
    answer.writeHead(200, { "content-type": type, ...!isTrailed && status });
    if (isTrailed) answer.addTrailers(status);
    answer.end();
    return;
  }
  const { code, message } = error;
  const body = JSON.stringify({ code: CODE_NAMES[code], message });
  const status = error.status ?? HTTP_STATUS[code] ?? 400;
  answer.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    ...(code === Code.Unauthenticated && { "www-authenticate": "Bearer" }),
    // The rest of a body that nobody reads must not be taken for the next request.
    ...(request.httpVersionMajor === 1 && !request.complete && { connection: "close" }),
  });
  answer.end(body);
}

const CODE_NAMES: Partial<Record<Code, string>> = {
  [Code.InvalidArgument]: "invalid_argument",
  [Code.Unauthenticated]: "unauthenticated",
  [Code.PermissionDenied]: "permission_denied",
  [Code.ResourceExhausted]: "resource_exhausted",
  [Code.Unimplemented]: "unimplemented",
};

const HTTP_STATUS: Partial<Record<Code, number>> = {
  [Code.InvalidArgument]: 400,
  [Code.Unauthenticated]: 401,
  [Code.PermissionDenied]: 403,
  [Code.Unimplemented]: 404,
};

function text(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value.join(",") : value;
}
