import type { IncomingMessage, ServerResponse } from "node:http";
import type { Hono } from "hono";
import { type ApiListener, type ApiListenerOptions, listenApi } from "../api/listener.ts";
import type { Bindings } from "./app.ts";

/** How {@linkcode listenHttp} listens. */
export type HttpListenerOptions = Omit<ApiListenerOptions, "handler" | "http2">;

type App = Pick<Hono<{ Bindings: Bindings }>, "fetch">;

/**
 * Serves the HTTP API over HTTP/1.1, with the limits and times of the other API's port: Deno's own HTTP server bounds neither
 * connections nor their silence. Throws an Error that names the address.
 */
export function listenHttp(app: App, options: HttpListenerOptions): Promise<ApiListener> {
  return listenApi({
    ...options,
    http2: false,
    handler: (request, response) => {
      answer(app, request as IncomingMessage, response as ServerResponse).catch((error) => {
        options.log.debug("a request ended early", { error: String(error) });
        response.destroy();
      });
    },
  });
}

async function answer(app: App, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const left = new AbortController();
  response.on("close", () => left.abort());
  const given = requestOf(request);
  const answered = given === undefined
    ? Response.json({ error: "Cannot read the request: its head is malformed" }, { status: 400 })
    : await app.fetch(given, { remoteAddress: request.socket.remoteAddress ?? "", signal: left.signal });
  const body = new Uint8Array(await answered.arrayBuffer());
  const headers = Object.fromEntries(answered.headers);
  if (request.method !== "HEAD") headers["content-length"] = String(body.length);
  response.writeHead(answered.status, headers);
  response.end(body);
}

/** The same request as the web's APIs have it; undefined where they have none. */
function requestOf(request: IncomingMessage): Request | undefined {
  const { method = "GET", url = "/" } = request;
  try {
    const headers = new Headers();
    for (const [name, value] of Object.entries(request.headers)) {
      if (value !== undefined) headers.set(name, String(value));
    }
    // Who was asked is told by the Host field alone.
    const { pathname, search } = url.startsWith("/") ? new URL(`http://localhost${url}`) : new URL(url);
    const body = method === "GET" || method === "HEAD"
      ? undefined
      : ReadableStream.from(request as AsyncIterable<Uint8Array<ArrayBuffer>>);
    return new Request(`http://localhost${pathname}${search}`, { method, headers, body });
  } catch {
    return undefined;
  }
}
