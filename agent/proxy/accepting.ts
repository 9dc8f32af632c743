import type { WorkerContext } from "./context.ts";
import { closeQuietly } from "./sink.ts";

/** A listener and the loop that accepts on it, which ends some time after the listener has been closed. */
export interface Accepting {
  listener: Deno.Listener<Deno.Conn>;
  ended: Promise<void>;
}

/** An accepted connection. */
export interface Connection {
  readonly isIdle: boolean;
  run(): Promise<void>;
  /** Ends it after the request in hand. */
  drain(): void;
  /** Closes at once. */
  close(): void;
}

/** Pause after a failed accept, which mostly means that file descriptors have run out. */
const ACCEPT_RETRY_MS = 50;

/** Hands every connection of a listener to `serve`, until the listener is closed. */
export function accept(listener: Deno.Listener<Deno.Conn>, serve: (conn: Deno.Conn) => void): Accepting {
  return { listener, ended: acceptAll(listener, serve) };
}

async function acceptAll(
  listener: Deno.Listener<Deno.Conn>,
  serve: (conn: Deno.Conn) => void,
): Promise<void> {
  for (;;) {
    try {
      serve(await listener.accept());
    } catch (error) {
      // Closed by us.
      if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted) return;
      // The client left before it was accepted, or descriptors have run out.
      await new Promise((resolve) => setTimeout(resolve, ACCEPT_RETRY_MS));
    }
  }
}

/** The port is closed only when a pending accept has come to its end. */
export async function stopAccepting(accepting: Accepting[]): Promise<void> {
  for (const { listener } of accepting) closeQuietly(listener);
  await Promise.all(accepting.map(({ ended }) => ended));
}

/** Waits for connections that are ending, at most `graceMs`, then closes them. */
export async function closeAll(
  connections: ReadonlyMap<Connection, unknown>,
  graceMs: number,
): Promise<void> {
  const until = performance.now() + graceMs;
  while (connections.size > 0 && performance.now() < until) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  for (const connection of connections.keys()) connection.close();
}

/** A connection that has not yet said which protocol it speaks. */
export class Opening implements Connection {
  deadlineMs: number;
  readonly isIdle = true;
  /** It has been cut. */
  isClosed = false;

  constructor(
    private readonly conn: Deno.Conn,
    private readonly context: Pick<WorkerContext, "deadlines" | "limits" | "closer">,
  ) {
    this.deadlineMs = context.deadlines.nowMs + context.limits.handshakeTimeoutMs;
    context.deadlines.add(this);
  }

  run(): Promise<void> {
    return Promise.resolve();
  }

  /** Whoever has just connected has a request. */
  drain(): void {
    const { deadlines, limits } = this.context;
    this.deadlineMs = Math.min(this.deadlineMs, deadlines.nowMs + limits.firstRequestGraceMs);
  }

  done(): void {
    this.context.deadlines.remove(this);
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.done();
    this.context.closer.cut(this.conn);
  }

  onDeadline(): void {
    this.close();
  }
}

/** Whether an error says no more than that the other side has gone, or that we have closed the connection. */
export function isPeerFailure(error: unknown): boolean {
  return error instanceof Deno.errors.ConnectionReset || error instanceof Deno.errors.BrokenPipe ||
    error instanceof Deno.errors.UnexpectedEof || error instanceof Deno.errors.BadResource ||
    error instanceof Deno.errors.Interrupted || error instanceof Deno.errors.InvalidData ||
    error instanceof Deno.errors.NotConnected || error instanceof Deno.errors.TimedOut;
}
