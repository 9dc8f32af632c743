import type { Hono } from "hono";
import type { HostPort, TlsFiles } from "../config.ts";
import type { Bindings } from "./app.ts";

/** The HTTP port, open. */
export interface HttpListener extends AsyncDisposable {
  /** Where it listens; the real port when 0 was asked for. */
  readonly address: HostPort;
}

/** Time that requests in flight get when the agent stops, milliseconds. */
const CLOSE_MS = 1_000;

/** Serves the HTTP API. Throws an Error that names the address. */
export async function listenHttp(
  app: Hono<{ Bindings: Bindings }>,
  options: { address: HostPort; tls?: TlsFiles },
): Promise<HttpListener> {
  const { host, port } = options.address;
  const closing = new AbortController();
  const tls = options.tls && {
    cert: await Deno.readTextFile(options.tls.certFile),
    key: await Deno.readTextFile(options.tls.keyFile),
  };
  try {
    const server = Deno.serve(
      { hostname: host, port, signal: closing.signal, onListen() {}, ...tls },
      (request, { remoteAddr }) => {
        const remoteAddress = remoteAddr.transport === "tcp" ? remoteAddr.hostname : "";
        return app.fetch(request, { remoteAddress, signal: request.signal });
      },
    );
    return {
      address: { host, port: (server.addr as Deno.NetAddr).port },
      async [Symbol.asyncDispose]() {
        const timer = setTimeout(() => closing.abort(), CLOSE_MS);
        await server.shutdown();
        clearTimeout(timer);
      },
    };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`Cannot listen on "${host}:${port}": ${reason}`, { cause: error });
  }
}
