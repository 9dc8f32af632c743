/** What is read and written: a socket, TLS on one, or one of the streams that share one. */
export type Conn = Pick<Deno.Conn, "read" | "write" | "closeWrite" | "close">;

/** Whether a connection speaks TLS. */
export function isSecure(conn: Conn): boolean {
  return "handshake" in conn;
}
