import type { Endpoint } from "../endpoint.ts";

/** One accepted or dialled stream. `Deno.Conn` is one. */
export interface ByteStream {
  /** Reads into `into`; null at the end. */
  read(into: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  close(): void;
}

/** Who takes what a transport receives. */
export interface TransportHandler {
  /** `packet` is the handler's to keep. */
  packet(from: Endpoint, packet: Uint8Array): void;
  /** `address` is the IP address that it comes from. */
  stream(stream: ByteStream, address: string): void;
}

/** Moves packets and streams between nodes: real sockets, or an in-memory network. */
export interface Transport extends AsyncDisposable {
  /** Where it is bound. */
  readonly local: { host: string; port: number };
  /** Packets lost on this side. */
  readonly dropped: number;
  /** Begins to receive. */
  start(handler: TransportHandler): void;
  /** Sends a packet, or loses it; never throws. */
  send(to: Endpoint, packet: Uint8Array): void;
  /** Throws where nobody listens, or `signal` aborts. */
  dial(to: Endpoint, signal: AbortSignal): Promise<ByteStream>;
}

/** Time and timers of a driver. */
export interface Clock {
  /** Milliseconds from any fixed point; never goes back. */
  now(): number;
  /** Calls `run` after `delayMs`; the result cancels it. */
  after(delayMs: number, run: () => void): () => void;
}

/** The machine's own clock. */
export const systemClock: Clock = {
  now: () => performance.now(),
  after(delayMs, run) {
    const id = setTimeout(run, delayMs);
    return () => clearTimeout(id);
  },
};
