import { Code, ConnectError } from "@connectrpc/connect";
import type { ProcessSession, WindowSize } from "../../runtime/engine.ts";

/** What a client sends into a session after its start. */
export type SessionRequest =
  | { case: "stdin"; value: Uint8Array }
  | { case: "stdinClosed"; value: boolean }
  | { case: "resize"; value: { columns: number; rows: number } }
  | { case: "signal"; value: number }
  | { case: "detach"; value: boolean }
  | { case: "start"; value: unknown }
  | { case: undefined; value?: undefined };

/** How a session ends whose client asks to leave. */
const DETACHED = Symbol("detached");

const MAX_SIGNAL = 64;
const MAX_WINDOW = 10_000;

/**
 * Connects a client's requests with a process: yields what it writes, ends when it does, and resolves its exit code at
 * the end, or nothing when the client detached. Leaving (the signal, or the consumer) disposes the session.
 */
export async function* bridge(
  session: ProcessSession,
  requests: AsyncIterable<SessionRequest>,
  signal: AbortSignal,
): AsyncGenerator<{ stream: "stdout" | "stderr"; data: Uint8Array }, number | undefined> {
  const over = Promise.withResolvers<typeof DETACHED>();
  over.promise.catch(() => {}); // it is raced below; when nothing is raced any more, nobody needs it
  const leave = () => {
    over.reject(signal.reason);
    // Also when the consumer never asks again, as one that can write no more.
    session[Symbol.asyncDispose]().then(undefined, over.reject);
  };
  signal.addEventListener("abort", leave, { once: true });
  const output = session.output[Symbol.asyncIterator]();
  feed(session, requests).then((end) => end === DETACHED && over.resolve(end), over.reject);
  try {
    signal.throwIfAborted();
    for (;;) {
      const next = await Promise.race([output.next(), over.promise]);
      if (next === DETACHED) return undefined;
      if (next.done) break;
      yield next.value;
    }
    const end = await Promise.race([session.exitCode, over.promise]);
    return end === DETACHED ? undefined : end;
  } finally {
    signal.removeEventListener("abort", leave);
    await session[Symbol.asyncDispose]();
  }
}

/** Takes the first request of a stream, which must be its start. */
export async function takeStart<R extends { request: SessionRequest }>(
  requests: AsyncIterable<R>,
): Promise<{ first: R["request"]; rest: AsyncIterable<SessionRequest> }> {
  const iterator = requests[Symbol.asyncIterator]();
  const first = await iterator.next();
  if (first.done || first.value.request.case !== "start") {
    throw new ConnectError(
      "Cannot open the session: the first message must be its start",
      Code.InvalidArgument,
    );
  }
  return { first: first.value.request, rest: rest(iterator) };
}

/** Checks the size of a terminal. */
export function windowSize(window: { columns: number; rows: number }): WindowSize {
  for (const [field, value] of Object.entries({ columns: window.columns, rows: window.rows })) {
    if (value < 1 || value > MAX_WINDOW) {
      throw new ConnectError(
        `Cannot accept ${field} "${value}": it must be 1 to ${MAX_WINDOW}`,
        Code.InvalidArgument,
      );
    }
  }
  return { columns: window.columns, rows: window.rows };
}

async function* rest(iterator: AsyncIterator<{ request: SessionRequest }>): AsyncGenerator<SessionRequest> {
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value.request;
}

/** Passes the requests on, one after the other, until they end or one asks to detach. */
async function feed(
  session: ProcessSession,
  requests: AsyncIterable<SessionRequest>,
): Promise<typeof DETACHED | undefined> {
  for await (const request of requests) {
    switch (request.case) {
      case "stdin":
        await session.write(request.value);
        break;
      case "stdinClosed":
        if (request.value) await session.closeStdin();
        break;
      case "resize":
        await session.resize(windowSize(request.value));
        break;
      case "signal":
        if (request.value < 1 || request.value > MAX_SIGNAL) {
          throw new ConnectError(
            `Cannot accept signal "${request.value}": it must be 1 to ${MAX_SIGNAL}`,
            Code.InvalidArgument,
          );
        }
        await session.kill(request.value);
        break;
      case "detach":
        if (request.value) return DETACHED;
        break;
      case "start":
        throw new ConnectError("Cannot start the session again: it runs", Code.InvalidArgument);
      case undefined:
        throw new ConnectError("Cannot accept an empty message", Code.InvalidArgument);
    }
  }
}
