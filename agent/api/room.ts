import type { Http2ServerResponse, Http2Session } from "node:http2";

/**
 * Waits for room on connections of HTTP/2. Deno takes as much of a stream as its client gives window, 2 GiB if it likes, and
 * holds it at the connection, whether the client reads or not.
 */
export class ConnectionRoom {
  /** Streams of a connection wait together, as a socket wants no hundred listeners. */
  readonly #drained = new WeakMap<Http2Session, Promise<void>>();

  /** Resolves when there is room for another piece, or when there is nobody any more to send it to. */
  async wait({ stream }: Pick<Http2ServerResponse, "stream">): Promise<void> {
    const session = stream?.session;
    while (session !== undefined && !session.destroyed && session.socket.writableNeedDrain) {
      let drained = this.#drained.get(session);
      if (drained === undefined) this.#drained.set(session, drained = this.#next(session));
      await drained;
    }
  }

  async #next(session: Http2Session): Promise<void> {
    const { socket } = session;
    await new Promise<void>((resolve) => {
      // Of a session that is closed the socket cannot be had any more.
      session.once("close", resolve);
      socket.once("drain", () => {
        session.off("close", resolve);
        resolve();
      });
    });
    this.#drained.delete(session);
  }
}
