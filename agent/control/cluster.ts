import type { DescService } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { systemRandom } from "../../gossip/mod.ts";
import { ClusterService } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { ClusterAdminService } from "../../proto/gen/hypercore/v1/cluster_pb.ts";
import type { BeaconService } from "../../proto/gen/hypercore/v1/beacon_pb.ts";
import { ProofService } from "../../proto/gen/hypercore/v1/proof_pb.ts";
import { PeerService } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { WorkloadService } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { ClusterApi, type ClusterCalls } from "../api/cluster_api.ts";
import { type ClusterFacts, clusterService, type ClusterServices } from "../api/services.ts";
import { WorkloadApi } from "../api/workload_service.ts";
import { ClusterCore } from "../cluster/core.ts";
import { cordonNote } from "../cluster/state_sync.ts";
import { GOSSIP, TAG } from "../cluster/tags.ts";
import { hostPlatform } from "../../runtime/image/manifest.ts";
import { Membership } from "../membership/membership.ts";
import type { PeerUpstream, Route } from "../proxy/mod.ts";
import { adminService } from "./admin_service.ts";
import { ClusterEvents } from "./cluster_events.ts";
import { ClusterWideCalls } from "./cluster_calls.ts";
import type { ClusterParts, PeerLocation } from "./cluster_parts.ts";
import { ClusterPolicies, findWhole } from "./cluster_policies.ts";
import { clusterRoutes } from "./cluster_routes.ts";
import { ClusterView } from "./cluster_view.ts";
import { CoreDriver } from "./core_driver.ts";
import { Effects } from "./effects.ts";
import { clusterWorkloads, PEER_CALL_MS } from "./forwarding.ts";
import { LocalNode } from "./local_node.ts";
import { LogSearch } from "./log_search.ts";
import { Mover } from "./mover.ts";
import { moverParts } from "./mover_parts.ts";
import { isOriginal, OriginalNodes } from "./original_nodes.ts";
import { peerService } from "./peer_service.ts";
import { Placer } from "./placer.ts";
import { PolicyNodes } from "./policy_nodes.ts";
import { QueryAnswers } from "./query_answers.ts";
import { Trust } from "./trust.ts";

/** This node's part in its cluster, put together. Nothing here decides. */
export class Cluster implements ClusterServices, AsyncDisposable {
  readonly membership: Membership;
  readonly core: ClusterCore;
  readonly events = new ClusterEvents(Date.now);
  readonly view: ClusterView;
  /** The original's four calls, for the whole cluster. */
  readonly calls: ClusterCalls;
  readonly workloads: ServiceImpl<typeof WorkloadService>;
  readonly admin: ServiceImpl<typeof ClusterAdminService>;
  readonly policies: ClusterPolicies;
  readonly beacons: ServiceImpl<typeof BeaconService>;
  /** Absent when the node makes no proofs. */
  readonly proofs: ServiceImpl<typeof ProofService> | undefined;
  /** What answers the original's queries, for the metrics. */
  readonly queries: Pick<QueryAnswers, "inWork" | "dropped">;
  readonly #parts: ClusterParts;
  readonly #closing = new AbortController();
  readonly #driver: CoreDriver;
  readonly #effects: Effects;
  readonly #local: LocalNode;
  readonly #logs: LogSearch;
  #last: AsyncDisposable | undefined;
  #isLocalDue = false;
  /** How each member is reached, as of the last change. */
  #ways: ReadonlyMap<string, string> = new Map();

  /** Binds, loads what an earlier agent left, and joins in the background. Throws an Error that says what is wrong. */
  static async open(parts: ClusterParts): Promise<Cluster> {
    const { config, nodeId, nodeName, network, durable, gossip, version } = parts;
    const membership = await Membership.open({
      name: nodeName,
      nodeId,
      bind: config.bind,
      advertise: config.advertise,
      profile: config.profile,
      tags: {
        ...config.tags,
        [TAG.arch]: hostPlatform().architecture,
        [TAG.fingerprint]: network.fingerprint,
        ...(parts.hopPort !== undefined && { [TAG.hopPort]: String(parts.hopPort) }),
        ...(config.respawn !== "off" && { [TAG.respawn]: "1" }),
      },
      ...gossip,
      transport: network.transport,
      metrics: parts.metrics,
      log: parts.log,
    });
    try {
      const core = new ClusterCore({
        node: { id: nodeId, name: nodeName, ip: membership.self.address.host },
        agentVersion: version,
        incarnation: await durable.incarnation(Date.now()),
        random: systemRandom(),
        nowMs: Date.now(),
        respawn: config.respawn !== "off",
        respawnQuorum: config.respawn === "majority" ? "majority" : "none",
        tombstones: await durable.tombstones(),
        signer: parts.signer,
        verifier: parts.verifier,
      });
      return new Cluster(parts, { membership, core });
    } catch (error) {
      await membership[Symbol.asyncDispose]();
      throw error;
    }
  }

  private constructor(parts: ClusterParts, own: { membership: Membership; core: ClusterCore }) {
    const { nodeId, nodeName, manager, engine, images, network, durable, config, log } = parts;
    const { membership, core } = own;
    this.#parts = parts;
    this.membership = membership;
    this.core = core;
    const view = this.view = new ClusterView(core, (id) => manager.find(id)?.proof);
    const client = <S extends DescService>(service: S, to: string) => network.client(service, to);
    const peer = (to: string) => client(PeerService, to);
    const trust = new Trust(parts, { membership, core, view, client });
    const local = this.#local = new LocalNode({
      nodeId,
      nodeName,
      manager,
      images,
      tags: config.tags,
      isCordoned: () => durable.isCordoned,
      policy: parts.policyContext,
      beacon: parts.beacon,
      isBuried: (id) => core.isStopped(id),
    });
    const policies = this.policies = new ClusterPolicies({
      node: { id: nodeId, name: nodeName },
      gate: parts.policies.gate,
      nodes: new PolicyNodes({
        core,
        self: parts.policies.self,
        measured: (node) => parts.beacon?.measured(node) ?? { latencyMs: membership.rttMs(node.name) },
      }),
      find: findWhole({
        own: (idOrName) => {
          const own = manager.list().find(({ id, spec }) => id === idOrName || spec.name === idOrName);
          return own && { id: own.id, request: own.record.request };
        },
        find: (idOrName) => view.find(idOrName),
        fetch: async (to, id) => (await peer(to).fetchRequest({ id }, { timeoutMs: PEER_CALL_MS })).request,
      }),
    });
    const placer: Placer = new Placer({
      self: { id: nodeId, name: nodeName },
      local,
      membership,
      peer,
      candidates: (request) => view.candidates(request),
      existing: (id) => view.spawned(id),
      named: (name) => view.named(name),
      judge: (request, options) => policies.judge(request, options),
      observe: (id, deed) => trust.note(id, deed),
      catchUp: (id) => effects.catchUp(id),
      mode: "ranked",
      random: systemRandom(),
      newId: parts.newId,
    });
    const effects: Effects = this.#effects = new Effects({
      core,
      driver: () => this.#driver,
      membership,
      manager,
      placer: () => placer,
      peer,
      durable,
      events: this.events,
      nodeName: (id) => view.nodeName(id),
      onRefused: (effect) => trust.refused(effect),
      signal: this.#closing.signal,
      log,
    });
    this.#driver = new CoreDriver(core, (effect) => effects.perform(effect));
    const localCalls = new ClusterApi({
      manager,
      engine,
      node: { id: nodeId, name: nodeName, address: membership.self.address.host },
      policy: parts.policyContext,
      onStop: ({ id, generation }) =>
        this.#driver.input((nowMs) => core.tombstone(nowMs, { id, generation })),
    });
    const logs = this.#logs = new LogSearch({ view, membership, engine });
    this.calls = new ClusterWideCalls({
      local: localCalls,
      view,
      client,
      placer,
      originals: new OriginalNodes(membership),
      originalNode: (id) => {
        const member = membership.members().get(id);
        return member && isOriginal(member) ? member : undefined;
      },
      locateLog: (idOrName) => logs.locate(idOrName),
      catchUp: (id) => effects.catchUp(id),
      bury: (id, generation) => this.#driver.input((nowMs) => core.tombstone(nowMs, { id, generation })),
    });
    const localWorkloads = new WorkloadApi({ api: localCalls, manager, engine }).service();
    this.workloads = clusterWorkloads(localWorkloads, {
      locate: (idOrName) => {
        const { isSelf, nodeId: owner, workload } = view.find(idOrName);
        return { id: workload.id, nodeId: isSelf ? undefined : owner };
      },
      locateLog: (idOrName) => logs.locate(idOrName),
      client,
      spawn: (request, options) => this.calls.spawn(request, options),
    });
    const setCordoned = async (cordoned: boolean) => {
      if (cordoned === durable.isCordoned) return;
      await durable.setCordoned(cordoned);
      this.events.emit(nodeName, { case: "note", value: cordonNote(nodeName, cordoned) });
      this.localChanged();
    };
    const mover = new Mover(moverParts({ nodeId, manager, core, view, placer, peer, setCordoned }));
    this.admin = adminService({
      membership,
      leave: parts.stop,
      operations: {
        facts: (id) => this.#facts(id),
        cordon: (node, cordoned) => mover.cordon(node, cordoned),
        drain: (node, signal) => mover.drain(node, signal),
        move: (id, options) => mover.move(id, options),
        watch: (signal) => this.events.watch(signal),
      },
    });
    this.proofs = trust.proofs?.service;
    this.beacons = trust.beacons;
    network.resolveWith((id) => this.#locatePeer(id));
    network.serve((router) => {
      router.service(PeerService, peerService({ core, driver: this.#driver, local, manager, setCordoned }));
      router.service(ClusterService, clusterService(localCalls));
      router.service(WorkloadService, localWorkloads);
      if (parts.proofs !== undefined) router.service(ProofService, parts.proofs.service);
    });
    const answers = this.queries = new QueryAnswers({
      nodeName,
      offer: (request) => local.offer(request),
      spawn: (request) => local.place(request, { id: parts.newId() }),
      stop: (id, graceMs) => {
        const isHere = manager.list().some((each) => each.id === id || each.spec.name === id);
        return isHere ? localCalls.stop(id, { graceMs }) : undefined;
      },
      attest: (message) => trust.attest(message),
      policy: (message) => policies.answer(message),
      proof: trust.proofs?.answer,
      answer: (query, payload) => membership.answer(query, payload),
      log,
    });
    this.#listen(answers);
    trust.connect();
    this.localChanged();
    membership.keepJoining(config.joins);
  }

  /** Something about this node's workloads has changed; told to the others before the next event is handled. */
  localChanged(): void {
    if (this.#isLocalDue) return;
    this.#isLocalDue = true;
    queueMicrotask(() => {
      this.#isLocalDue = false;
      this.#driver.input((nowMs) => this.core.localChanged(nowMs, this.#local.state()));
    });
  }

  /** Whether this node takes no new workloads. */
  get isCordoned(): boolean {
    return this.#parts.durable.isCordoned;
  }

  /** Disposed after everything else. */
  closeLast(resource: AsyncDisposable): void {
    this.#last = resource;
  }

  /** Says goodbye, so that the others withdraw their routes to this node, and ends its part. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.membership.serf.aliveCount > 1) await this.membership.leave();
    this.#closing.abort();
    this.#driver[Symbol.dispose]();
    await this.#parts.network.closeCalls();
    await this.membership[Symbol.asyncDispose]();
    await this.#parts.durable.flush();
    await this.#last?.[Symbol.asyncDispose]();
  }

  /** A route to another node proved wrong: its state is asked for anew. */
  routeIsStale(nodeId: string): void {
    this.#effects.perform({ kind: "fetch", nodeId });
  }

  /** The proxy's whole table: this node's own routes, and those to what runs elsewhere. */
  routes(own: readonly Route[]): Route[] {
    return clusterRoutes(own, {
      planned: this.core.routes(),
      upstream: (nodeId) => this.#upstream(nodeId),
    });
  }

  /** Brings the routes up to date when a member is reached another way than before. */
  #membersMoved(): void {
    const ways = new Map<string, string>();
    let isMoved = false;
    for (const [id, { address, tags }] of this.membership.members()) {
      const way = `${address.host} ${tags[TAG.hopPort]} ${tags[TAG.fingerprint]}`;
      ways.set(id, way);
      const before = this.#ways.get(id);
      if (before !== undefined && before !== way) isMoved = true;
    }
    this.#ways = ways;
    if (isMoved) this.#effects.perform({ kind: "routes" });
  }

  #upstream(nodeId: string): PeerUpstream | undefined {
    const member = this.membership.members().get(nodeId);
    const fingerprint = member?.tags[TAG.fingerprint];
    const port = Number(member?.tags[TAG.hopPort]);
    const isPort = Number.isInteger(port) && port > 0 && port <= 65_535;
    if (member === undefined || fingerprint === undefined || !isPort) return undefined;
    return { kind: "peer", node: nodeId, hostname: member.address.host, port, fingerprint };
  }

  #listen(answers: QueryAnswers): void {
    const { membership, core } = this;
    const tellMembers = () => {
      this.#parts.network.changed();
      this.#membersMoved();
      this.#driver.input((nowMs) => core.members(nowMs, [...membership.members().values()]));
    };
    membership.listen({
      members: tellMembers,
      userEvent: (name, payload) => {
        this.#driver.input((nowMs) => core.userEvent(nowMs, name, payload));
        if (!name.startsWith("hypercore_")) {
          const value = { name, payload: payload as Uint8Array<ArrayBuffer> };
          this.events.emit("", { case: "user", value });
        }
      },
      query: (query) => {
        if (query.name !== GOSSIP.findLog) return answers.handle(query);
        this.#logs.answer(query).catch((error) => {
          this.#parts.log.warn("cannot look for a log", { error: String(error) });
        });
      },
      nameLost: () => this.#parts.stop(),
      memberEvent: (member, what) => this.events.emit(member.name, { case: "member", value: what }),
    });
    tellMembers();
    this.#watchWorkloads();
  }

  /** This node's workload events, for the readers of the cluster's. */
  async #watchWorkloads(): Promise<void> {
    const { manager, nodeName, log } = this.#parts;
    try {
      for await (const event of manager.watch(this.#closing.signal)) {
        this.events.emit(nodeName, { case: "workload", value: { ...event, atMs: BigInt(event.atMs) } });
      }
    } catch (error) {
      if (!this.#closing.signal.aborted) {
        log.error("cannot follow this node's events", { error: String(error) });
      }
    }
  }

  #locatePeer(nodeId: string): PeerLocation | undefined {
    const member = this.membership.members().get(nodeId);
    const fingerprint = member?.tags[TAG.fingerprint];
    if (member === undefined || fingerprint === undefined) return undefined;
    return { name: member.name, ...member.address, fingerprint };
  }

  /** What `info` says. */
  facts(): ClusterFacts {
    const { host, port } = this.membership.self.address;
    return {
      gossipAddress: host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`,
      gossipEncrypted: this.membership.isEncrypted,
      membersAlive: this.membership.serf.aliveCount,
      cordoned: this.#parts.durable.isCordoned,
      clusterWorkloads: this.core.sizes.workloads,
    };
  }

  #facts(nodeId: string) {
    const node = this.core.nodes().find(({ id }) => id === nodeId);
    const header = node?.header;
    return {
      kind: node?.kind === "hypercore" ? "hypercore" : header === undefined ? "serf" : "hypercore-go",
      agentVersion: header?.agentVersion ?? "",
      cordoned: header?.cordoned ?? false,
      workloads: node?.workloads ?? 0,
      verified: node?.isVerified ?? false,
    };
  }
}
