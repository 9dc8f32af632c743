import { Keyring } from "./codec/keyring.ts";
import { LIMITS } from "./codec/limits.ts";
import { NO_BYTES } from "./codec/text.ts";
import { Endpoint, splitHostPort } from "./endpoint.ts";
import { type Log, silentLog } from "./log.ts";
import { DEFAULT_EAGER, type MemberlistConfig, PROFILES } from "./memberlist/config.ts";
import { type KeyringExtras, readKeyring, readKeyringExtras, writeKeyring } from "./net/keyring_file.ts";
import { privateAddress } from "./net/private_address.ts";
import { SnapshotFile } from "./net/snapshot_file.ts";
import { SocketTransport } from "./net/socket_transport.ts";
import { systemClock } from "./net/transport.ts";
import type { SerfOptions } from "./options.ts";
import { systemRandom } from "./random.ts";
import { DEFAULT_SERF_CONFIG } from "./serf/config.ts";
import type { Address } from "./serf/rejoin.ts";
import { SerfCore } from "./serf/serf.ts";
import { Serf } from "./serf.ts";

/**
 * Binds, starts, and, where there is a snapshot, joins the members it names. The result is a running member of a
 * cluster of one until {@linkcode Serf.join} or the snapshot found others.
 */
export async function createSerf(options: SerfOptions): Promise<Serf> {
  const { log = silentLog, clock = systemClock, random = systemRandom() } = options;
  const { keyringFile } = options;
  const keys = (keyringFile && await readKeyring(keyringFile)) || options.keys || [];
  const extras = keyringFile === undefined ? undefined : await readExtras(keyringFile, log);
  const snapshot = options.snapshotFile === undefined
    ? undefined
    : await SnapshotFile.read(options.snapshotFile, { rejoinAfterLeave: options.rejoinAfterLeave });
  const config = memberlistConfig(options);
  const keyring = keys.length > 0 ? new Keyring(keys) : undefined;
  if (extras) keyring?.retire(extras.retired);

  await using stack = new AsyncDisposableStack();
  const transport = stack.use(options.transport ?? SocketTransport.bind(options.bind));
  const core = new SerfCore({
    random,
    keyring,
    label: options.label,
    compression: options.compression ?? true,
    serf: { ...DEFAULT_SERF_CONFIG, ...options.serf },
    memberlist: config,
    advertise: advertised(options, transport.local),
    tags: new Map(Object.entries(options.tags ?? {})),
    keyMemory: extras,
  });
  if (snapshot) core.resume(snapshot.replay.clocks);
  const file = snapshot && options.snapshotFile
    ? SnapshotFile.open({
      path: options.snapshotFile,
      ...snapshot,
      clock,
      log,
      readClocks: () => core.clocks,
    })
    : undefined;
  const saveKeys = () => {
    const memory = core.keys.memory;
    if (keyringFile === undefined || keyring === undefined || memory === undefined) return;
    writeKeyring(
      keyringFile,
      { keys: keyring.keys(), extras: { ...memory, retired: keyring.retired() } },
      log,
    );
  };
  // Now, too: what others learn of this node must hold in its next life.
  saveKeys();
  const { metrics, resolver } = options;
  const serf = new Serf({
    core,
    transport,
    clock,
    log,
    random,
    resolver,
    metrics,
    keyring,
    snapshot: file,
    saveKeys,
  });
  stack.move();
  serf.start();
  if (snapshot) serf.rejoin(formerMembers(snapshot.replay.alive, serf));
  return serf;
}

function formerMembers(alive: ReadonlyMap<string, string>, serf: Serf): Address[] {
  const former: Address[] = [];
  for (const [name, text] of alive) {
    const parts = name === serf.name ? undefined : splitHostPort(text, serf.local.port);
    const endpoint = parts && Endpoint.parse(parts.host, parts.port);
    if (endpoint !== undefined) former.push({ name, endpoint });
  }
  return former;
}

/** A node is better off without its extras than not running at all: they are made anew. */
async function readExtras(keyringFile: string, log: Log): Promise<KeyringExtras | undefined> {
  try {
    return await readKeyringExtras(keyringFile);
  } catch (error) {
    log.error("cannot read what is kept beside the key ring; making it anew", {
      reason: error instanceof Error ? error.message : String(error),
    });
  }
}

function memberlistConfig(options: SerfOptions): MemberlistConfig {
  if (options.name === "" || options.name.length > 128) {
    throw new RangeError(`Cannot use node name "${options.name}": it must have 1 to 128 characters`);
  }
  return {
    ...PROFILES[options.profile ?? "hypercore"],
    ...options.timing,
    name: options.name,
    meta: NO_BYTES,
    vsn: new Uint8Array([1, 5, 2, 2, 5, options.protocol ?? 4]),
    udpBufferBytes: LIMITS.udpBufferBytes,
    eager: options.eager === false ? undefined : options.eager ?? DEFAULT_EAGER,
    deadNodeReclaimMs: options.acceptMoves === false ? undefined : 0,
    verifyMoves: options.acceptMoves !== false,
    lastCall: options.lastCall !== false,
  };
}

function advertised(options: SerfOptions, local: { host: string; port: number }): Endpoint {
  const isAny = local.host === "0.0.0.0" || local.host === "::";
  const host = options.advertise?.host ?? (isAny ? privateAddress() ?? "127.0.0.1" : local.host);
  const endpoint = Endpoint.parse(host, options.advertise?.port ?? local.port);
  if (endpoint === undefined) throw new RangeError(`Cannot advertise "${host}": it is no IP address`);
  return endpoint;
}
