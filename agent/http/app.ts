import { fromJson, toJson } from "@bufbuild/protobuf";
import { type Context, Hono } from "hono";
import {
  NodeSchema,
  type VmSpawnRequest,
  VmSpawnRequestSchema,
  VmSpawnResponseSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { ClusterCalls } from "../api/cluster_api.ts";
import { parseStrictJson } from "../api/strict_json.ts";
import { type GuardPolicy, isLoopbackName, judge } from "../security/guard.ts";
import { listView } from "./json_view.ts";
import { openApiDocument } from "./openapi.ts";

/** Largest body of a request, bytes. */
export const MAX_BODY_BYTES = 1 << 20;

/** What {@linkcode httpApp} is given. */
export interface HttpAppOptions {
  api: ClusterCalls;
  guard: GuardPolicy;
  log: Log;
  version: string;
  /** Throws the reason when the node can't take work. */
  ready: () => Promise<void>;
  /** Told of the status of each answer. */
  count?: (status: number) => void;
  /** The Prometheus text. */
  metrics: () => Promise<{ contentType: string; body: string }>;
}

/** What the server tells of a connection. */
export interface Bindings {
  remoteAddress: string;
  /** Aborts when the client leaves before it has its answer; what it does after that is of no account. */
  signal: AbortSignal;
  /** Called when it is known that the client may call; what is public proves nothing of it. */
  accepted: () => void;
}

type AppContext = Context<{ Bindings: Bindings }>;

const PUBLIC = new Set(["/healthz", "/readyz"]);
const METHODS: Readonly<Record<string, readonly string[]>> = {
  "/spawn": ["POST"],
  // As the original; what a link or an image on a foreign page sends is refused by Sec-Fetch-Site, or for want of a token.
  "/stop": ["POST", "GET", "DELETE"],
  "/list": ["GET", "POST"],
  "/logs": ["GET", "POST"],
  "/healthz": ["GET"],
  "/readyz": ["GET"],
  "/metrics": ["GET"],
  "/openapi.json": ["GET"],
};

/** The plain HTTP API of the original, health, metrics and their description. */
export function httpApp(options: HttpAppOptions): Hono<{ Bindings: Bindings }> {
  const { api, guard } = options;
  const app = new Hono<{ Bindings: Bindings }>();
  app.use(async (c, next) => {
    await next();
    options.count?.(c.res.status);
  });
  app.use(async (c, next) => {
    const isPublic = PUBLIC.has(c.req.path) ||
      (c.req.path === "/metrics" && isLoopbackName(c.env.remoteAddress.replace(/^::ffff:/, "")));
    const refusal = judge(
      {
        host: c.req.header("host") ?? new URL(c.req.url).host,
        origin: c.req.header("origin"),
        fetchSite: c.req.header("sec-fetch-site"),
        authorization: c.req.header("authorization"),
      },
      guard,
      { isPublic },
    );
    if (refusal?.kind === "unauthenticated") {
      return c.json({ error: refusal.reason }, 401, { "www-authenticate": "Bearer" });
    }
    if (refusal !== undefined) return c.json({ error: refusal.reason }, 403);
    if (!isPublic) c.env.accepted();
    const allowed = METHODS[c.req.path];
    const method = c.req.method === "HEAD" ? "GET" : c.req.method;
    if (allowed !== undefined && !allowed.includes(method)) {
      const error = `Cannot answer ${c.req.method} ${c.req.path}: use ${allowed.join(" or ")}`;
      return c.json({ error }, 405, { allow: allowed.join(", ") });
    }
    await next();
  });
  app.post("/spawn", async (c) => {
    const request = await readSpawn(c);
    const response = await api.spawn(request, { signal: c.env.signal });
    return answer(c, toJson(VmSpawnResponseSchema, response, { useProtoFieldName: true }));
  });
  app.on(["POST", "GET", "DELETE"], "/stop", async (c) => {
    return answer(
      c,
      toJson(NodeSchema, await api.stop(c.req.query("id") ?? ""), { useProtoFieldName: true }),
    );
  });
  app.on(["GET", "POST"], "/list", (c) => answer(c, listView(api.list())));
  app.on(["GET", "POST"], "/logs", async (c) => {
    const tail = readTail(c.req.query("tail"));
    return answer(c, await api.logs(c.req.query("id") ?? "", { tail, signal: c.env.signal }));
  });
  app.get("/healthz", (c) => c.text("ok\n"));
  app.get("/readyz", async (c) => {
    try {
      await options.ready();
      return c.text("ready\n");
    } catch (error) {
      return c.text(`not ready: ${error instanceof Error ? error.message : error}\n`, 503);
    }
  });
  app.get("/metrics", async (c) => {
    const { contentType, body } = await options.metrics();
    return c.body(body, 200, { "content-type": contentType });
  });
  app.get("/openapi.json", (c) => c.json(openApiDocument({ version: options.version })));
  app.notFound((c) => c.json({ error: `Cannot find ${c.req.path}: see /openapi.json` }, 404));
  app.onError((error, c) => failure(error, c, options.log));
  return app;
}

/** An error that has a status of its own. */
class HttpError extends Error {
  constructor(readonly status: 400 | 413 | 415, message: string) {
    super(message);
  }
}

function answer(c: AppContext, response: unknown): Response {
  return c.json({ response } as never);
}

function failure(error: unknown, c: AppContext, log: Log): Response {
  if (error instanceof HttpError) return c.json({ error: error.message }, error.status);
  if (error instanceof RuntimeError) return c.json({ error: error.message }, 400);
  log.error("a request failed unexpectedly", { error: error instanceof Error ? error.stack : String(error) });
  return c.json({ error: "Cannot answer: internal error, see the agent's log" }, 500);
}

async function readSpawn(c: AppContext): Promise<VmSpawnRequest> {
  if (!/^application\/json(;|$)/i.test(c.req.header("content-type") ?? "")) {
    throw new HttpError(415, "Cannot read the request body: send content-type application/json");
  }
  const body = await readBody(c.req.raw);
  try {
    return fromJson(VmSpawnRequestSchema, parseStrictJson(body) as never, { ignoreUnknownFields: false });
  } catch (error) {
    throw new HttpError(
      400,
      `Cannot read the request body: ${error instanceof Error ? error.message : error}`,
    );
  }
}

async function readBody(request: Request): Promise<Uint8Array> {
  const tooLarge = () => new HttpError(413, `Cannot read the request body: at most ${MAX_BODY_BYTES} bytes`);
  if (Number(request.headers.get("content-length") ?? 0) > MAX_BODY_BYTES) throw tooLarge();
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const chunk of request.body ?? []) {
      length += chunk.length;
      if (length > MAX_BODY_BYTES) throw tooLarge();
      chunks.push(chunk);
    }
  } catch (error) {
    if (error instanceof HttpError) throw error;
    throw new HttpError(400, "Cannot read the request body: the client broke off");
  }
  const body = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    body.set(chunk, at);
    at += chunk.length;
  }
  return body;
}

function readTail(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^[0-9]{1,9}$/.test(text)) return Number(text) || undefined;
  throw new HttpError(400, `Cannot accept tail "${text.slice(0, 100)}": a whole number is needed`);
}
