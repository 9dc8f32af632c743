import type { IncomingMessage } from "node:http";
import { getRequestListener, RequestError } from "@hono/node-server";
import type { Hono } from "hono";
import { type ApiListener, type ApiListenerOptions, listenApi } from "../api/listener.ts";
import type { Bindings } from "./app.ts";

/** How {@linkcode listenHttp} listens. */
export type HttpListenerOptions = Omit<ApiListenerOptions, "handler" | "http2">;

type App = Pick<Hono<{ Bindings: Bindings }>, "fetch">;

/**
 * Serves the HTTP API over HTTP/1.1, with the limits and times of the other API's port: Deno's own HTTP server bounds neither
 * connections nor their silence. An answer goes out as it comes, no faster than its client reads. Throws an Error that names
 * the address.
 */
export function listenHttp(app: App, options: HttpListenerOptions): Promise<ApiListener> {
  const acceptedOf = new WeakMap<object, () => void>();
  const answer = getRequestListener(
    (request, { incoming }) => {
      const remoteAddress = (incoming as IncomingMessage).socket.remoteAddress ?? "";
      const accepted = acceptedOf.get(incoming) ?? (() => {});
      return app.fetch(request, { remoteAddress, signal: request.signal, accepted });
    },
    { errorHandler: refuse, hostname: HOST_OF_HTTP_1_0, overrideGlobalObjects: false },
  );
  return listenApi({
    ...options,
    http2: false,
    handler: (request, response, accepted = () => {}) => {
      acceptedOf.set(request, accepted);
      answer(request, response).catch((error) => {
        options.log.error("a request failed unexpectedly", { error: String(error) });
        response.destroy();
      });
    },
  });
}

/** HTTP/1.0 has no Host field; such a request is no browser's. */
const HOST_OF_HTTP_1_0 = "localhost";

/** Answers a request that the web's APIs have no form for. */
function refuse(error: unknown): Response {
  if (!(error instanceof RequestError)) throw error;
  return Response.json({ error: `Cannot read the request's head: ${error.message}` }, { status: 400 });
}
