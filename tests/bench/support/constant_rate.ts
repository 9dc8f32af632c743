import net from "node:net";

export interface RateOptions {
  port: number;
  path: string;
  ratePerSecond: number;
  seconds: number;
  connections: number;
}

/**
 * GETs at a constant rate over kept connections, whatever the answers take: a request that had to wait for a free
 * connection counts from when it was due (no coordinated omission). Returns the latencies in milliseconds, sorted.
 */
export async function constantRate(options: RateOptions): Promise<Float64Array> {
  const { port, path, ratePerSecond, seconds, connections } = options;
  const total = ratePerSecond * seconds;
  const latencies = new Float64Array(total);
  const request = `GET ${path} HTTP/1.1\r\nHost: app.test\r\n\r\n`;
  const due: number[] = [];
  const free: ((dueMs: number) => void)[] = [];
  let finished = 0;
  const done = Promise.withResolvers<void>();
  const sockets = Array.from({ length: connections }, () => {
    const socket = net.connect(port, "127.0.0.1");
    socket.setNoDelay(true);
    let left = -1, dueMs = 0;
    const send = (at: number) => {
      dueMs = at;
      left = -1;
      socket.write(request);
    };
    socket.on("connect", () => free.push(send));
    socket.on("error", (error) => done.reject(error));
    socket.on("data", (chunk: Uint8Array) => {
      if (left < 0) {
        const head = new TextDecoder("latin1").decode(chunk);
        const length = Number(/content-length: (\d+)/i.exec(head)?.[1]);
        left = length + head.indexOf("\r\n\r\n") + 4;
      }
      left -= chunk.length;
      if (left > 0) return;
      latencies[finished++] = performance.now() - dueMs;
      const next = due.shift();
      if (next !== undefined) send(next);
      else free.push(send);
      if (finished === total) done.resolve();
    });
    return socket;
  });
  const startMs = performance.now() + 200;
  let issued = 0;
  const timer = setInterval(() => {
    const until = Math.min(total, Math.floor((performance.now() - startMs) / 1000 * ratePerSecond));
    for (; issued < until; issued++) {
      const at = startMs + issued / ratePerSecond * 1000;
      const send = free.pop();
      if (send) send(at);
      else due.push(at);
    }
  }, 1);
  try {
    await done.promise;
  } finally {
    clearInterval(timer);
    for (const socket of sockets) socket.destroy();
  }
  return latencies.sort();
}
