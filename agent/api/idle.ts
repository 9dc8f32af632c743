import type http2 from "node:http2";

/** How long an HTTP/2 connection may have no call, milliseconds. */
export interface SessionTimes {
  /** Before its client has begun to speak HTTP/2. */
  headTimeoutMs: number;
  /** After that, and after its last call. */
  idleTimeoutMs: number;
}

/** Ends an HTTP/2 connection that has had no call for so long. A call that is open keeps it, however silent it is. */
export function endWhenIdle(session: http2.ServerHttp2Session, times: SessionTimes): void {
  let open = 0;
  let timer = setTimeout(() => session.destroy(), times.headTimeoutMs);
  const wait = () => {
    clearTimeout(timer);
    if (open === 0) timer = setTimeout(() => session.close(), times.idleTimeoutMs);
  };
  session.once("remoteSettings", wait);
  session.on("stream", (stream) => {
    open++;
    clearTimeout(timer);
    stream.once("close", () => {
      open--;
      wait();
    });
  });
  session.once("close", () => clearTimeout(timer));
}
