import type net from "node:net";

/** What tells a connection from all others of its port, at either layer of TLS and below a session of HTTP/2. */
export function endpointsOf(
  socket: Pick<net.Socket, "localAddress" | "remoteAddress" | "remotePort">,
): string {
  return `${socket.localAddress} ${socket.remoteAddress} ${socket.remotePort}`;
}
