import net from "node:net";
import type { Duplex } from "node:stream";

/**
 * Relays a hop that the main thread has taken to a worker, which listens at `socketPath`: the worker checks membership and
 * serves it like any other. Ends both when either fails. Calls `onEnd` once, when both are over.
 */
export function relayHop(stream: Duplex, socketPath: string, onEnd: () => void): void {
  const inner = net.connect({ path: socketPath, allowHalfOpen: true });
  let open = 2;
  const join = (from: Duplex, to: Duplex) => {
    from.once("error", () => to.destroy());
    from.once("close", () => {
      // A stream that was cut, rather than ended, must not look whole to the other side.
      if (!from.readableEnded) to.destroy();
      if (--open === 0) onEnd();
    });
    from.pipe(to);
  };
  join(stream, inner);
  join(inner, stream);
}
