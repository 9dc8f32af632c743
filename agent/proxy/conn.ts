/** Whether a connection speaks TLS. */
export function isSecure(conn: Deno.Conn): boolean {
  return "handshake" in conn;
}
