import type { SerfEvent } from "./events.ts";

/** Smallest size at which a snapshot is rewritten, and the bytes that each living member allows. */
const COMPACT_MIN_BYTES = 128 * 1024;
const COMPACT_MEMBER_BYTES = 256;
/** Longest snapshot that is read. */
export const MAX_SNAPSHOT_BYTES = 64 * 1024 * 1024;

/** Last Lamport times seen. */
export interface SnapshotClocks {
  member: number;
  event: number;
  query: number;
}

/** What a snapshot says of the node's earlier life. */
export interface Replay {
  /** Living members: name to `host:port`. */
  alive: Map<string, string>;
  clocks: SnapshotClocks;
}

/**
 * Reads a snapshot in Serf's format. After a leave nothing of before counts, unless `rejoinAfterLeave`. Lines that make
 * no sense (a torn last one) are passed over.
 */
export function replaySnapshot(text: string, options: { rejoinAfterLeave?: boolean } = {}): Replay {
  let alive = new Map<string, string>();
  const clocks: SnapshotClocks = { member: 0, event: 0, query: 0 };
  for (const line of text.split("\n")) {
    const colon = line.indexOf(": ");
    const key = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 2);
    switch (key) {
      case "alive": {
        const space = value.lastIndexOf(" ");
        if (space > 0) alive.set(value.slice(0, space), value.slice(space + 1));
        break;
      }
      case "not-alive":
        alive.delete(value);
        break;
      case "clock":
        clocks.member = time(value) ?? clocks.member;
        break;
      case "event-clock":
        clocks.event = time(value) ?? clocks.event;
        break;
      case "query-clock":
        clocks.query = time(value) ?? clocks.query;
        break;
      case "leave":
        if (options.rejoinAfterLeave) break;
        alive = new Map();
        clocks.member = clocks.event = clocks.query = 0;
        break;
    }
  }
  return { alive, clocks };
}

function time(text: string): number | undefined {
  const value = Number(text);
  return text !== "" && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
}

/** Turns what happens into the lines of a snapshot. */
export class SnapshotLog {
  readonly #alive: Map<string, string>;
  readonly #clocks: SnapshotClocks;
  #bytes = 0;

  /** Goes on from an earlier life; `bytes` is the size of its snapshot. */
  constructor(replay: Replay, bytes: number) {
    this.#alive = new Map(replay.alive);
    this.#clocks = { ...replay.clocks };
    this.#bytes = bytes;
  }

  /** Lines for one event. */
  event(event: SerfEvent): string {
    let lines = "";
    switch (event.kind) {
      case "member-join":
        for (const member of event.members) {
          const host = member.host.includes(":") ? `[${member.host}]` : member.host;
          const address = `${host}:${member.port}`;
          this.#alive.set(member.name, address);
          lines += `alive: ${member.name} ${address}\n`;
        }
        break;
      case "member-leave":
      case "member-failed":
        for (const member of event.members) {
          this.#alive.delete(member.name);
          lines += `not-alive: ${member.name}\n`;
        }
        break;
    }
    return this.#count(lines);
  }

  /** Lines for the clocks that moved. `next` are the next times, one more than the last seen. */
  clocks(next: SnapshotClocks): string {
    const last = this.#clocks;
    let lines = "";
    if (next.member - 1 > last.member) lines += `clock: ${last.member = next.member - 1}\n`;
    if (next.event - 1 > last.event) lines += `event-clock: ${last.event = next.event - 1}\n`;
    if (next.query - 1 > last.query) lines += `query-clock: ${last.query = next.query - 1}\n`;
    return this.#count(lines);
  }

  /** The line of a leave. */
  leave(): string {
    this.#alive.clear();
    return this.#count("leave\n");
  }

  /** Whether the snapshot should be rewritten. */
  get wantsCompaction(): boolean {
    return this.#bytes > Math.max(COMPACT_MIN_BYTES, this.#alive.size * COMPACT_MEMBER_BYTES);
  }

  /** The whole snapshot anew. */
  compact(): string {
    let text = "";
    for (const [name, address] of this.#alive) text += `alive: ${name} ${address}\n`;
    text +=
      `clock: ${this.#clocks.member}\nevent-clock: ${this.#clocks.event}\nquery-clock: ${this.#clocks.query}\n`;
    this.#bytes = text.length;
    return text;
  }

  #count(lines: string): string {
    this.#bytes += lines.length;
    return lines;
  }
}
