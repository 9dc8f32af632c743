import {
  type AskOptions,
  createSerf,
  distanceS,
  type KeyResult,
  type MemberInfo,
  type MetricsRegistry,
  type Profile,
  type Query,
  type QueryResult,
  rotateKey,
  type Rotation,
  type Serf,
  type SerfListener,
  type Transport,
} from "../../gossip/mod.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import { clusterEventSubject } from "../cluster/event_subject.ts";
import type { ClusterMember } from "../cluster/ports.ts";
import { PROTOCOL_VERSION, TAG } from "../cluster/tags.ts";
import type { HostPort } from "../config.ts";

/** Name and payload of a user event together, bytes; the original's limit. */
export const USER_EVENT_LIMIT = 2_048;

/** What a node's membership is made of. */
export interface MembershipOptions {
  name: string;
  nodeId: string;
  bind: HostPort;
  advertise?: HostPort;
  profile: Profile;
  /** Besides those of the agent itself. */
  tags: Readonly<Record<string, string>>;
  /** The primary first; empty means no encryption. */
  keys: readonly Uint8Array[];
  keyringFile?: string;
  snapshotFile: string;
  /** Packets and streams; absent means sockets of its own on `bind`. */
  transport?: Transport;
  metrics?: MetricsRegistry;
  log: Log;
}

/** Who is told what happens among members. */
export interface MembershipListener {
  members?(): void;
  userEvent?(name: string, payload: Uint8Array): void;
  query?(query: Query): void;
  /** The cluster gave this node's name to another: its agent has to end. Said once. */
  nameLost?(): void;
  /** What changed about a member, for the stream of events. */
  memberEvent?(member: ClusterMember, what: "joined" | "left" | "failed" | "reaped" | "updated"): void;
}

const EVENT_NAMES = {
  "member-join": "joined",
  "member-leave": "left",
  "member-failed": "failed",
  "member-reap": "reaped",
  "member-update": "updated",
} as const;

/** This node as a member of its cluster: a Serf member whose tags say what agents need to know of each other. */
export class Membership implements AsyncDisposable {
  readonly #serf: Serf;
  readonly #options: MembershipOptions;
  readonly #closing = new AbortController();
  readonly #listeners = new Set<MembershipListener>();
  #hasName = true;
  #joining: Promise<void> = Promise.resolve();
  #members: ReadonlyMap<string, ClusterMember> | undefined;

  private constructor(serf: Serf, options: MembershipOptions) {
    this.#serf = serf;
    this.#options = options;
    serf.listen((event) => this.#heard(event));
  }

  /** Binds and starts. Throws an Error that names the address where it is taken. */
  static async open(options: MembershipOptions): Promise<Membership> {
    const serf = await createSerf({
      name: options.name,
      bind: options.bind,
      advertise: options.advertise,
      profile: options.profile,
      tags: tagsOf(options),
      keys: options.keys,
      keyringFile: options.keyringFile,
      snapshotFile: options.snapshotFile,
      rejoinAfterLeave: true,
      serf: { userEventSizeLimit: USER_EVENT_LIMIT, eventSubject: clusterEventSubject },
      transport: options.transport,
      metrics: options.metrics,
      log: options.log,
    });
    return new Membership(serf, options);
  }

  get serf(): Serf {
    return this.#serf;
  }

  get isEncrypted(): boolean {
    return this.#options.keys.length > 0;
  }

  /** The key ring as it is now, the primary first; empty without encryption. */
  get keys(): readonly Uint8Array[] {
    return this.#serf.keys() ?? [];
  }

  /** This node as others see it. */
  get self(): ClusterMember {
    return this.members().get(this.#options.nodeId)!;
  }

  /** Everyone by node id, this node included. The map is new after each change. */
  members(): ReadonlyMap<string, ClusterMember> {
    if (this.#members !== undefined) return this.#members;
    const members = new Map<string, ClusterMember>();
    for (const info of this.#serf.members()) {
      const member = clusterMember(info);
      const other = members.get(member.id);
      // A node that was renamed is still known by its old name until that is reaped.
      if (other === undefined || rank(member) > rank(other)) members.set(member.id, member);
    }
    return this.#members = members;
  }

  /** By name. */
  named(name: string): ClusterMember | undefined {
    const info = this.#serf.member(name);
    return info && clusterMember(info);
  }

  /** Calls the listener from now on; the result ends that. */
  listen(listener: MembershipListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Joins now. Gives how many addresses answered; throws `unavailable` where none did. */
  async join(addresses: readonly string[], signal?: AbortSignal): Promise<number> {
    try {
      return await this.#serf.join(addresses, { signal });
    } catch (error) {
      throw new RuntimeError("unavailable", reasonOf(error), {
        cause: error,
      });
    }
  }

  /** Joins in the background, again and again with growing, jittered pauses until somebody answers. */
  keepJoining(addresses: readonly string[]): void {
    if (addresses.length > 0) this.#joining = this.#keepJoining(addresses);
  }

  async #keepJoining(addresses: readonly string[]): Promise<void> {
    const { log } = this.#options;
    try {
      const joined = await this.#serf.retryJoin(addresses, { signal: this.#closing.signal });
      log.info("joined the cluster", { answered: joined, members: this.members().size });
    } catch (error) {
      if (!this.#closing.signal.aborted) log.error("cannot join", { reason: reasonOf(error) });
    }
  }

  /** Tells everyone. Throws `invalid` where it is too long. */
  broadcast(name: string, payload: Uint8Array, options: { coalesce?: boolean } = {}): void {
    this.#orInvalid(() => this.#serf.userEvent(name, payload, { coalesce: options.coalesce ?? false }));
  }

  /** Asks the members. Throws `invalid` where it is too long, or a filter cannot be read. */
  async ask(name: string, options: AskOptions): Promise<QueryResult> {
    try {
      return await this.#serf.query(name, options);
    } catch (error) {
      throw new RuntimeError("invalid", reasonOf(error), {
        cause: error,
      });
    }
  }

  /** Answers a query; what comes too late or is too long is lost, and logged. */
  answer(query: Query, payload: Uint8Array): void {
    try {
      this.#serf.respond(query, payload);
    } catch (error) {
      this.#options.log.debug("cannot answer a query", {
        query: query.name,
        reason: reasonOf(error),
      });
    }
  }

  /** Estimated round-trip time between two members, milliseconds; undefined where nothing is known yet. */
  rttMs(from: string, to: string = this.#serf.name): number | undefined {
    const { coordinates } = this.#serf.core;
    const of = (name: string) => name === this.#serf.name ? coordinates.own : coordinates.other(name);
    const [a, b] = [of(from), of(to)];
    return a && b && distanceS(a, b) * 1_000;
  }

  /** Declares a member that failed gone. Throws `not-found`, or `precondition` where it is alive. */
  async forceLeave(name: string, options: { prune?: boolean } = {}): Promise<void> {
    const member = this.#serf.member(name);
    if (member === undefined) {
      throw new RuntimeError("not-found", `Cannot make node "${name}" leave: no member has this name`);
    }
    // It would object at once, and be forgotten until then where it is pruned.
    if (member.status === "alive") {
      throw new RuntimeError(
        "precondition",
        `Cannot make node "${name}" leave: it is alive; run "hypercore leave" on it`,
      );
    }
    await this.#serf.forceLeave(name, options);
  }

  /** Changes the operator's tags of this node. */
  setTags(tags: Readonly<Record<string, string>>): void {
    this.#orInvalid(() => this.#serf.setTags(tagsOf({ ...this.#options, tags })));
  }

  /** Gives the cluster a new key, in the order that cuts nobody off; see {@linkcode rotateKey}. */
  rotateKey(key: Uint8Array): Promise<Rotation> {
    return rotateKey(this.#serf, key);
  }

  manageKeys(operation: "list" | "install" | "use" | "remove", key?: Uint8Array): Promise<KeyResult> {
    if (operation === "list") return this.#serf.listKeys();
    if (key === undefined) {
      throw new RuntimeError("invalid", `Cannot ${operation} a gossip key: none is given`);
    }
    if (operation === "install") return this.#serf.installKey(key);
    return operation === "use" ? this.#serf.useKey(key) : this.#serf.removeKey(key);
  }

  /**
   * Says goodbye: others take this node for one that left, not for a failed one. Says nothing where the name is another
   * node's by now: the goodbye would be taken for that node's.
   */
  async leave(): Promise<void> {
    this.#closing.abort();
    if (this.#hasName) await this.#serf.leave();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#joining;
    await this.#serf[Symbol.asyncDispose]();
  }

  #heard(event: Parameters<SerfListener>[0]): void {
    switch (event.kind) {
      case "user":
        for (const listener of this.#listeners) listener.userEvent?.(event.name, event.payload);
        return;
      case "query":
        for (const listener of this.#listeners) listener.query?.(event);
        return;
      case "name-conflict":
        this.#options.log.error("another node has this node's name", {
          name: event.name,
          other: event.other,
        });
        return;
      case "name-lost":
        this.#loseName(event);
        return;
      case "keyring":
        return;
    }
    this.#members = undefined;
    for (const listener of this.#listeners) {
      listener.members?.();
      for (const info of event.members) listener.memberEvent?.(clusterMember(info), EVENT_NAMES[event.kind]);
    }
  }

  #loseName({ votes, answers }: { votes: number; answers: number }): void {
    if (!this.#hasName) return;
    this.#hasName = false;
    const { name, log } = this.#options;
    log.error(
      "the cluster gave this node's name to another node: stopping; start it with another --node-name",
      {
        name,
        votes,
        answers,
      },
    );
    for (const listener of this.#listeners) listener.nameLost?.();
  }

  #orInvalid(work: () => void): void {
    try {
      work();
    } catch (error) {
      throw new RuntimeError("invalid", reasonOf(error), {
        cause: error,
      });
    }
  }
}

function tagsOf({ nodeId, tags }: Pick<MembershipOptions, "nodeId" | "tags">): Record<string, string> {
  return { ...tags, [TAG.protocol]: PROTOCOL_VERSION, [TAG.id]: nodeId };
}

function clusterMember(info: MemberInfo): ClusterMember {
  const tags = Object.fromEntries(info.tags);
  return {
    id: tags[TAG.id] || info.name,
    name: info.name,
    status: info.status === "none" ? "failed" : info.status,
    address: { host: info.host, port: info.port },
    tags,
  };
}

/** Of two entries for one node, the livelier counts. */
function rank({ status }: ClusterMember): number {
  return { alive: 3, leaving: 2, failed: 1, left: 0 }[status];
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
