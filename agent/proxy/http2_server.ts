import { closeQuietly } from "./sink.ts";

/** Deno's HTTP server for one HTTP/2 connection, and our end of that connection. */
export interface Http2Server {
  conn: Deno.Conn;
  /** Tells the client to open no more streams (GOAWAY), lets the open ones end, then ends the connection. */
  shutdown(): Promise<void>;
  /** Cuts the connection and resolves once nothing of the server is left. */
  close(): Promise<void>;
}

/**
 * Starts an HTTP server that serves exactly one connection, the one returned: its socket lies in a directory of our own
 * and has lost its name by the time this resolves, so that nobody else can reach the handler. Throws when no socket can
 * be made, such as when file descriptors have run out.
 */
export async function openHttp2Server(
  handler: (request: Request) => Promise<Response>,
  signal: AbortSignal,
): Promise<Http2Server> {
  const dir = await Deno.makeTempDir({ prefix: "hypercore-h2-" });
  let server: Deno.HttpServer | undefined;
  try {
    const path = `${dir}/s`;
    server = Deno.serve({ path, automaticCompression: false, onListen: () => {} }, handler);
    // DENO_SERVE_ADDRESS goes before what we ask for, and would open the handler to others.
    if (server.addr.transport !== "unix") throw new Error("DENO_SERVE_ADDRESS is set");
    const conn = await Deno.connect({ transport: "unix", path });
    const opened = new OpenHttp2Server(conn, server);
    if (signal.aborted) closeQuietly(conn);
    signal.throwIfAborted();
    return opened;
  } catch (error) {
    await server?.shutdown();
    throw error;
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

class OpenHttp2Server implements Http2Server {
  #stopping?: Promise<void>;

  constructor(readonly conn: Deno.Conn, private readonly server: Deno.HttpServer) {}

  shutdown(): Promise<void> {
    return this.#stopping ??= this.server.shutdown();
  }

  async close(): Promise<void> {
    closeQuietly(this.conn);
    await this.shutdown();
  }
}
