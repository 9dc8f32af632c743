import { LARGE_BUFFER_BYTES, SMALL_BUFFER_BYTES } from "./buffers.ts";
import type { Conn } from "./conn.ts";
import { writeAll } from "./sink.ts";
import type { Source } from "./source.ts";

export interface TunnelEnd {
  conn: Conn;
  source: Source;
}

/**
 * Relays bytes both ways until both sides have ended or one fails; the end of one is passed on as the end of one
 * direction. `onBytes` is told of each piece and its direction. Whoever closes the connections stops it.
 */
export async function tunnel(
  client: TunnelEnd,
  upstream: TunnelEnd,
  onBytes: (bytes: number, direction: "in" | "out") => void,
): Promise<void> {
  await Promise.all([
    pump(client.source, upstream.conn, (bytes) => onBytes(bytes, "in")),
    pump(upstream.source, client.conn, (bytes) => onBytes(bytes, "out")),
  ]);
}

async function pump(source: Source, to: Conn, onBytes: (bytes: number) => void): Promise<void> {
  for (;;) {
    if (source.buffered === 0) {
      const added = await source.fill();
      if (added === 0 && source.buffered === 0) break;
      if (added >= SMALL_BUFFER_BYTES / 2) await source.fillReady();
    }
    const bytes = source.buffered;
    await writeAll(to, source.buffer.subarray(source.start, source.end));
    source.start = source.end;
    // A large buffer only while there is much to move: most tunnels are quiet most of the time.
    source.resize(bytes >= SMALL_BUFFER_BYTES ? LARGE_BUFFER_BYTES : SMALL_BUFFER_BYTES);
    onBytes(bytes);
  }
  await to.closeWrite();
}
