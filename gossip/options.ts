import type { Log } from "./log.ts";
import type { EagerOptions, MemberlistTiming, Profile } from "./memberlist/config.ts";
import type { MetricsRegistry } from "./metrics.ts";
import type { Clock, Transport } from "./net/transport.ts";
import type { Resolver } from "./net/resolve.ts";
import type { Random } from "./random.ts";
import type { SerfConfig } from "./serf/config.ts";

/** Settings of {@linkcode createSerf}. Only `name` and `bind` are needed. */
export interface SerfOptions {
  /** Unique in the cluster. */
  name: string;
  /** Where to listen, UDP and TCP; port 0 means any. `0.0.0.0` and `::` mean all addresses. */
  bind: { host: string; port: number };
  /** What others are told; absent means where it is bound, or the first private address. */
  advertise?: { host: string; port?: number };
  /** At most 512 bytes all together. */
  tags?: Readonly<Record<string, string>>;
  /** Timing; `hypercore` by default. */
  profile?: Profile;
  /** Single figures that differ from the profile's. */
  timing?: Partial<MemberlistTiming>;
  /** Single figures that differ from Serf's. */
  serf?: Partial<SerfConfig>;
  /** How news goes out at once; false means it waits for the gossip tick, as in Go. */
  eager?: EagerOptions | false;
  /** Keys of 16, 24 or 32 bytes, the primary first; absent or empty means no encryption. */
  keys?: readonly Uint8Array[];
  /** The key ring is kept here, in Serf's format (JSON array of base64); it wins over `keys` where it exists. */
  keyringFile?: string;
  /** Keeps clusters apart; other agents must have the same. */
  label?: string;
  /** Whether to compress; true by default. */
  compression?: boolean;
  /** Members and clocks are kept here, in Serf's format, and joined again at the next start. */
  snapshotFile?: string;
  /** Whether a snapshot that ends with a leave is joined again too. */
  rejoinAfterLeave?: boolean;
  /** Serf protocol stated to others: 4 (library default) or 5 (the serf agent). */
  protocol?: 4 | 5;
  /** Whether a dead node may come back at another address at once, and a live one that moved is found out. */
  acceptMoves?: boolean;
  /** Whether a suspected node is asked once more before it is declared dead; true by default. */
  lastCall?: boolean;
  log?: Log;
  metrics?: MetricsRegistry;
  /** Absent means sockets on `bind`. */
  transport?: Transport;
  clock?: Clock;
  random?: Random;
  /** How names of join addresses are resolved; absent means as the machine does. */
  resolver?: Resolver;
}
