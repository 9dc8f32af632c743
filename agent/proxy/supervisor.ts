import { CertificateFiles } from "./certificate.ts";
import { sumStats } from "./counters.ts";
import { fingerprintOf } from "./hop/protocol.ts";
import { DEFAULT_LIMITS, PLAIN_HTTP_PORT, type ProxyLimits } from "./limits.ts";
import type { HopIdentity, PortFailure, Proxy, ProxyOptions, ProxyStats, Route } from "./mod.ts";
import { whenFree } from "./when_free.ts";
import { WorkerHandle } from "./worker_handle.ts";

const TLS_POLL_MS = 2_000;
const MAX_WORKERS = 64;
/** A worker that crashed is replaced after this long, twice as long each time, until it has run well for a while. */
const FIRST_BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 10_000;
const STABLE_AFTER_MS = 60_000;
/** Longest wait for other proxies of the machine that renew their certificates, milliseconds. */
const LOCK_WAIT_MS = 10_000;
const MIGRATE_SETTING = "/proc/sys/net/ipv4/tcp_migrate_req";

/** Starts the proxy: its workers run, no port is open yet. Throws an Error when the certificate cannot be used. */
export async function openProxy(options: ProxyOptions): Promise<Proxy> {
  const supervisor = new Supervisor(options);
  try {
    await supervisor.start();
  } catch (error) {
    await supervisor[Symbol.asyncDispose]();
    throw error;
  }
  return supervisor;
}

interface Slot {
  handle?: WorkerHandle;
  startedMs: number;
  backoffMs: number;
  timer?: ReturnType<typeof setTimeout>;
}

/** The main thread's part: distributes the table, sums counters, replaces workers that crash. Moves no byte itself. */
class Supervisor implements Proxy {
  readonly #slots: Slot[];
  readonly #limits: ProxyLimits;
  readonly #reserved = new Map<number, number>();
  #routes: readonly Route[] = [];
  #ports = new Set<number>();
  #certificate?: CertificateFiles;
  /** Of workers that are no more. */
  #past: ProxyStats[] = [];
  #hop?: HopIdentity;
  /** Changes happen one after the other. */
  #queue: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(private readonly options: ProxyOptions) {
    const count = Math.min(MAX_WORKERS, options.workers || navigator.hardwareConcurrency || 1);
    this.#slots = Array.from({ length: count }, () => ({ startedMs: 0, backoffMs: FIRST_BACKOFF_MS }));
    const limits = { ...DEFAULT_LIMITS, ...options.limits };
    const share = (all: number) => Math.ceil(all / count);
    this.#limits = {
      ...limits,
      maxConnections: share(limits.maxConnections),
      maxHopConnections: share(limits.maxHopConnections),
      maxHopOpenings: share(limits.maxHopOpenings),
    };
  }

  async start(): Promise<void> {
    const { tls, log } = this.options;
    if (tls) {
      this.#certificate = await CertificateFiles.open({
        ...tls,
        pollMs: this.options.tlsPollMs ?? TLS_POLL_MS,
        onChange: () => {
          this.#serially(() => this.#renewCertificate()).then(
            () => log.info("proxy certificate renewed", { file: tls.certFile }),
            (error) =>
              log.error("proxy certificate not renewed", { file: tls.certFile, error: String(error) }),
          );
        },
        onRefused: (error) =>
          log.error("new proxy certificate refused, the old one stays", { error: error.message }),
      });
    }
    await Promise.all(this.#slots.map((slot) => this.#startWorker(slot)));
  }

  apply(routes: readonly Route[]): Promise<PortFailure[]> {
    return this.#serially(async () => {
      this.#routes = structuredClone(routes) as Route[];
      for (const { hostPort } of routes) this.#reserved.delete(hostPort);
      return await this.#distribute();
    });
  }

  async reserve(hostPort: number): Promise<{ release(): Promise<void> }> {
    await this.#serially(async () => {
      this.#reserved.set(hostPort, (this.#reserved.get(hostPort) ?? 0) + 1);
      const failure = (await this.#distribute()).find((one) => one.hostPort === hostPort);
      if (!failure) return;
      this.#unreserve(hostPort);
      throw new Error(`Cannot open host port "${hostPort}": ${failure.reason}`);
    });
    let released = false;
    return {
      release: async () => {
        if (released) return;
        released = true;
        await this.#serially(async () => {
          this.#unreserve(hostPort);
          await this.#distribute();
        });
      },
    };
  }

  async setHop(identity: HopIdentity): Promise<void> {
    fingerprintOf(identity.certificate.cert); // throws when it is no certificate
    await this.#serially(async () => {
      const before = this.#hop;
      const { bindHosts, port } = identity;
      const isOpen = before?.port === port && before.bindHosts.join() === bindHosts.join();
      const taken = isOpen ? undefined : await this.#probe(port, bindHosts);
      const [failure] = taken ? [{ reason: taken }] : await this.#sendHop(identity);
      if (!failure) {
        this.#hop = identity;
        return;
      }
      if (!taken && before) await this.#sendHop(before);
      throw new Error(`Cannot open hop port "${port}": ${failure.reason}`);
    });
  }

  async stats(): Promise<ProxyStats> {
    const live = await Promise.all(this.#slots.map(({ handle }) => handle?.stats()));
    return sumStats([...this.#past, ...live.filter((one) => one !== undefined)]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#certificate?.[Symbol.dispose]();
    await this.#queue;
    await Promise.all(this.#slots.map(async (slot) => {
      clearTimeout(slot.timer);
      await slot.handle?.stop(this.#limits.shutdownGraceMs);
    }));
  }

  /** Opens and closes ports on every worker; a port is open on all of them or, after a failure, on none. */
  async #distribute(): Promise<PortFailure[]> {
    const wanted = new Set([...this.#routes.map((route) => route.hostPort), ...this.#reserved.keys()]);
    const failures = new Map<number, string>();
    for (const port of wanted) {
      const taken = this.#ports.has(port) ? undefined : await this.#probe(port);
      if (taken !== undefined) failures.set(port, taken);
    }
    this.#ports = new Set([...wanted].filter((port) => !failures.has(port)));
    const failed = await this.#send();
    if (failed.length > 0) {
      for (const { hostPort, reason } of failed) {
        failures.set(hostPort, reason);
        this.#ports.delete(hostPort);
      }
      await this.#send();
    }
    return [...failures].map(([hostPort, reason]) => ({ hostPort, reason }));
  }

  async #sendHop(identity: HopIdentity): Promise<PortFailure[]> {
    const results = await Promise.all(
      this.#slots.map(({ handle }) => handle ? this.#sendHopTo(handle, identity) : []),
    );
    return results.flat();
  }

  async #sendHopTo(handle: WorkerHandle, identity: HopIdentity): Promise<PortFailure[]> {
    try {
      return await handle.hop({ identity });
    } catch (error) {
      if (!handle.isDead) throw error;
      return [];
    }
  }

  async #send(): Promise<PortFailure[]> {
    const results = await Promise.all(
      this.#slots.map((slot) => slot.handle ? this.#sendTo(slot.handle) : []),
    );
    return results.flat();
  }

  /** A worker that dies meanwhile is replaced, and its replacement gets the table. */
  async #sendTo(handle: WorkerHandle): Promise<PortFailure[]> {
    try {
      return await handle.apply({
        routes: this.#routes,
        ports: [...this.#ports],
        tls: this.#certificate?.pair,
      });
    } catch (error) {
      if (!handle.isDead) throw error;
      return [];
    }
  }

  /**
   * Workers share a port, and so could another process of this user, unnoticed: a bind that shares with nobody tells
   * whether the port is free. Returns the reason if it is not.
   */
  async #probe(port: number, bindHosts = this.options.bindHosts): Promise<string | undefined> {
    try {
      for (const hostname of bindHosts) await whenFree(() => Deno.listen({ hostname, port }).close());
      return undefined;
    } catch (error) {
      if (error instanceof Deno.errors.AddrInUse) return "the port is taken by another program";
      return error instanceof Error ? error.message : String(error);
    }
  }

  /**
   * Every worker opens new listeners beside the old ones, then closes the old. With tcp_migrate_req the kernel moves
   * what the old ones have not accepted yet to the new ones; without, it would reset it. One proxy of a machine at a time: another
   * would take the setting back too early. But anybody may hold that lock, so that it is not waited for without end.
   */
  async #renewCertificate(): Promise<void> {
    using setting = await Deno.open(MIGRATE_SETTING).catch(() => undefined); // of which is told below
    const { promise: late, resolve: giveUp } = Promise.withResolvers<void>();
    const timer = setTimeout(giveUp, LOCK_WAIT_MS);
    await Promise.race([setting?.lock(true), late]);
    clearTimeout(timer);
    const before = await this.#setMigration("1\n");
    try {
      await this.#send();
    } finally {
      if (before !== undefined && before !== "1\n") await this.#setMigration(before);
    }
  }

  async #setMigration(value: string): Promise<string | undefined> {
    try {
      const before = await Deno.readTextFile(MIGRATE_SETTING);
      if (before !== value) await Deno.writeTextFile(MIGRATE_SETTING, value);
      return before;
    } catch (error) {
      this.options.log.warn("connections arriving during the certificate change may be reset", {
        setting: MIGRATE_SETTING,
        error: String(error),
      });
      return undefined;
    }
  }

  async #startWorker(slot: Slot): Promise<void> {
    const { bindHosts, baseDomain, createWorker, http2 = true, plainPorts = [PLAIN_HTTP_PORT] } =
      this.options;
    slot.startedMs = performance.now();
    const handle = new WorkerHandle({
      createWorker: createWorker ?? newWorker,
      onDeath: (reason, last) => this.#onDeath(slot, handle, { reason, last }),
      onStale: this.options.onStale,
    });
    slot.handle = handle;
    await handle.start({ limits: this.#limits, http2, plainPorts, bindHosts, baseDomain });
    for (const failure of this.#hop ? await this.#sendHopTo(handle, this.#hop) : []) {
      this.options.log.error("proxy worker cannot open the hop port", { ...failure });
    }
  }

  #onDeath(slot: Slot, handle: WorkerHandle, { reason, last }: { reason: string; last?: ProxyStats }): void {
    if (slot.handle !== handle) return;
    slot.handle = undefined;
    if (last) this.#past = [sumStats([...this.#past, { ...last, openConnections: 0 }])];
    if (this.#closed) return;
    if (performance.now() - slot.startedMs > STABLE_AFTER_MS) slot.backoffMs = FIRST_BACKOFF_MS;
    this.options.log.error("proxy worker died, starting another", { reason, afterMs: slot.backoffMs });
    slot.timer = setTimeout(() => this.#replace(slot), slot.backoffMs);
    slot.backoffMs = Math.min(slot.backoffMs * 2, MAX_BACKOFF_MS);
  }

  #replace(slot: Slot): void {
    this.#serially(async () => {
      if (this.#closed) return;
      await this.#startWorker(slot);
      const failures = slot.handle ? await this.#sendTo(slot.handle) : [];
      for (const failure of failures) {
        this.options.log.error("proxy worker cannot open a port", { ...failure });
      }
    }).catch((error) => this.options.log.error("proxy worker not started", { error: String(error) }));
  }

  #unreserve(hostPort: number): void {
    const count = (this.#reserved.get(hostPort) ?? 0) - 1;
    if (count > 0) this.#reserved.set(hostPort, count);
    else this.#reserved.delete(hostPort);
  }

  #serially<T>(action: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(action);
    this.#queue = result.catch(() => {});
    return result;
  }
}

/** The worker's file stands beside this one, under another name when both are bundled. */
function newWorker(): Worker {
  const file = import.meta.url.endsWith(".ts") ? "./worker.ts" : "./proxy_worker.js";
  return new Worker(new URL(file, import.meta.url), { type: "module", name: "hypercore proxy" });
}
