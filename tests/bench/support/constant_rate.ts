export interface RateOptions {
  port: number;
  path: string;
  ratePerSecond: number;
  seconds: number;
  connections: number;
}

/** What {@linkcode constantRate} saw. */
export interface RateResult {
  /** Latencies in milliseconds, in rising order, without those of the warm-up. */
  sorted: Float64Array;
  /** Requests sent, those of the warm-up too. */
  requests: number;
}

/** Not measured: everyone's compilers and windows grow warm. */
const WARM_UP_SECONDS = 0.5;
const TICK_MS = 1;
const READ_BYTES = 64 * 1024;
/** Given up when it takes that many times as long as it should. */
const MAX_SLOWDOWN = 10;

/**
 * GETs at a constant rate over kept connections, whatever the answers take: a request that had to wait for a free
 * connection, or for this process, counts from when it was due (no coordinated omission). Every answer must be 200 and as
 * long as the first.
 */
export async function constantRate(options: RateOptions): Promise<RateResult> {
  const { port, path, ratePerSecond, seconds, connections } = options;
  const warmUp = Math.ceil(ratePerSecond * WARM_UP_SECONDS);
  const total = warmUp + ratePerSecond * seconds;
  const latencies = new Float64Array(total);
  const request = new TextEncoder().encode(`GET ${path} HTTP/1.1\r\nHost: app.test\r\n\r\n`);
  const clients: Client[] = [];
  let timer: ReturnType<typeof setInterval> | undefined;
  let deadline: ReturnType<typeof setTimeout> | undefined;
  try {
    while (clients.length < connections) clients.push(await openClient(port, request));
    const free = clients.slice();
    const done = Promise.withResolvers<void>();
    const startMs = performance.now() + 10;
    let due = 0, issued = 0, finished = 0;
    /** Sends everything due; request n is due at start + n/rate. */
    const issue = () => {
      due = Math.min(total, Math.floor((performance.now() - startMs) / 1000 * ratePerSecond));
      while (issued < due && free.length > 0) serve(free.pop()!, issued++);
    };
    const serve = (client: Client, n: number) => {
      client.get().then(() => {
        latencies[n] = performance.now() - startMs - n / ratePerSecond * 1000;
        free.push(client);
        if (++finished === total) done.resolve();
        else if (issued < due) issue();
      }, done.reject);
    };
    timer = setInterval(issue, TICK_MS);
    const giveUp = () =>
      done.reject(new Error(`Cannot ask port ${port} ${ratePerSecond} times a second: too slow`));
    deadline = setTimeout(giveUp, total / ratePerSecond * MAX_SLOWDOWN * 1000);
    await done.promise;
  } finally {
    clearInterval(timer);
    clearTimeout(deadline);
    for (const client of clients) client.close();
  }
  return { sorted: latencies.subarray(warmUp).sort(), requests: total };
}

/** One connection that knows how long an answer is. */
class Client {
  readonly #buffer = new Uint8Array(READ_BYTES);

  constructor(
    private readonly conn: Deno.Conn,
    private readonly request: Uint8Array,
    private readonly answerBytes: number,
  ) {}

  async get(): Promise<void> {
    // The request is shorter than any socket buffer. Its write and the first read go on together.
    const [written, first] = await Promise.all([this.conn.write(this.request), this.conn.read(this.#buffer)]);
    if (written !== this.request.length) throw new Error("Cannot send a request: it was written in part");
    const isOk = this.#buffer[9] === 50 && this.#buffer[10] === 48 && this.#buffer[11] === 48;
    let left = this.answerBytes - (first ?? 0);
    while (left > 0) {
      const count = await this.conn.read(this.#buffer);
      if (count === null) throw new Error("Cannot read an answer: the connection ended within");
      left -= count;
    }
    if (!isOk || left < 0) throw new Error("Cannot use an answer: not 200, or not as long as the first");
  }

  close(): void {
    this.conn.close();
  }
}

/** Connects, and asks once to learn the length of an answer. */
async function openClient(port: number, request: Uint8Array): Promise<Client> {
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  conn.setNoDelay(true);
  await conn.write(request);
  let text = "";
  const buffer = new Uint8Array(READ_BYTES);
  const decoder = new TextDecoder("latin1");
  for (;;) {
    const count = await conn.read(buffer);
    if (count === null) throw new Error(`Cannot ask port ${port}: it closed the connection`);
    text += decoder.decode(buffer.subarray(0, count));
    const head = text.indexOf("\r\n\r\n");
    if (head < 0) continue;
    const length = Number(/^content-length: *(\d+)/im.exec(text)?.[1]);
    const answerBytes = head + 4 + length;
    if (text.length === answerBytes) return new Client(conn, request, answerBytes);
  }
}
