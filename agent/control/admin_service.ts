import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type {
  ClusterAdminService,
  ManageKeysRequest,
  QueryRequest,
} from "../../proto/gen/hypercore/v1/cluster_pb.ts";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  ClusterEventSchema,
  MemberSchema,
  MoveEventSchema,
  QueryEventSchema,
} from "../../proto/gen/hypercore/v1/cluster_pb.ts";
import type { KeyResult } from "../../gossip/mod.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { ClusterMember } from "../cluster/ports.ts";
import { MAX_JOIN_ADDRESSES, parseGossipKey, parseJoin } from "../membership/join_address.ts";
import type { Membership } from "../membership/membership.ts";
import { Channel } from "./channel.ts";

/** Longest time a query of an operator may take, milliseconds. */
export const MAX_QUERY_MS = 600_000;

/** Bytes of a key made for a rotation. */
const NEW_KEY_BYTES = 32;

/** Time between the answer to `leave` and the end of the agent, milliseconds. */
const LEAVE_ANSWER_MS = 200;

/** What an operator may do to nodes and workloads; the cluster's part. */
export interface NodeOperations {
  /** Facts about a member that its state tells. */
  facts(
    nodeId: string,
  ): { agentVersion: string; cordoned: boolean; workloads: number; kind: string; verified: boolean };
  cordon(node: string, cordoned: boolean): Promise<void>;
  drain(node: string, signal: AbortSignal): AsyncIterable<MessageInitShape<typeof MoveEventSchema>>;
  move(
    id: string,
    options: { to: string; signal: AbortSignal },
  ): AsyncIterable<MessageInitShape<typeof MoveEventSchema>>;
  watch(signal: AbortSignal): AsyncIterable<MessageInitShape<typeof ClusterEventSchema>>;
}

/** What the admin service works with. */
export interface AdminParts {
  membership: Membership;
  operations: NodeOperations;
  /** Ends the agent after a goodbye. */
  leave: () => void;
}

/** The verbs of Serf's users, and those that look after nodes. */
export function adminService(parts: AdminParts): ServiceImpl<typeof ClusterAdminService> {
  const { membership, operations } = parts;
  return {
    members: () => ({
      members: [...membership.members().values()].map((member) => memberMessage(member, parts)),
      encrypted: membership.isEncrypted,
    }),
    async join({ addresses }, { signal }) {
      return { joined: await membership.join(checkAddresses(addresses), signal) };
    },
    async leave() {
      await membership.leave();
      // The caller gets its answer first.
      setTimeout(parts.leave, LEAVE_ANSWER_MS);
      return {};
    },
    async forceLeave({ node, prune }) {
      await membership.forceLeave(node, { prune });
      return {};
    },
    sendEvent({ name, payload, coalesce }) {
      if (name === "") throw new RuntimeError("invalid", 'Cannot send event "": it needs a name');
      if (name.startsWith("hypercore_")) {
        throw new RuntimeError(
          "invalid",
          `Cannot send event "${name}": names with hypercore_ are the agents' own`,
        );
      }
      membership.broadcast(name, payload, { coalesce });
      return {};
    },
    query: (request, context) => query(membership, request, context),
    manageKeys: (request) => manageKeys(membership, request),
    rtt({ from, to }) {
      const pair = [from, to === "" ? membership.self.name : to].map((name) => known(membership, name));
      const rttMs = membership.rttMs(pair[0].name, pair[1].name);
      if (rttMs !== undefined) return { rttMs };
      const away = pair.find(({ status }) => status !== "alive");
      const reason = away === undefined ? "not measured yet" : `"${away.name}" is ${away.status}`;
      throw new RuntimeError("unavailable", `Cannot tell the round-trip time to "${from}": ${reason}`);
    },
    async reachability(_request, { signal }) {
      const { members, acks, missing } = await membership.serf.reachability({ signal });
      return { members, acked: acks.toSorted(), missing: missing.toSorted() };
    },
    async cordon({ node, cordoned }) {
      await operations.cordon(node, cordoned);
      return {};
    },
    drain: ({ node }, { signal }) => operations.drain(node, signal),
    move: ({ id, to }, { signal }) => operations.move(id, { to, signal }),
    watchCluster: (_request, { signal }) => operations.watch(signal),
  };
}

function memberMessage(
  member: ClusterMember,
  { membership, operations }: AdminParts,
): MessageInitShape<typeof MemberSchema> {
  const { id, name, status, address: { host, port }, tags } = member;
  return {
    id,
    name,
    status,
    tags,
    address: host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`,
    ...operations.facts(id),
    rttMs: id === membership.self.id ? undefined : membership.rttMs(name),
    isSelf: id === membership.self.id,
  };
}

function checkAddresses(addresses: readonly string[]): string[] {
  if (addresses.length === 0) throw new RuntimeError("invalid", "Cannot join: no address is given");
  if (addresses.length > MAX_JOIN_ADDRESSES) {
    throw new RuntimeError(
      "invalid",
      `Cannot join: ${addresses.length} addresses are given, at most ${MAX_JOIN_ADDRESSES} are taken`,
    );
  }
  return addresses.map((address) => {
    try {
      const [join, ...more] = parseJoin(address);
      if (more.length > 0 || join.key !== undefined) throw new Error("one address without a key is needed");
      return join.address;
    } catch (error) {
      throw new RuntimeError(
        "invalid",
        `Cannot join "${address.slice(0, 100)}": ${(error as Error).message}`,
        {
          cause: error,
        },
      );
    }
  });
}

async function* query(
  membership: Membership,
  request: QueryRequest,
  { signal }: HandlerContext,
): AsyncGenerator<MessageInitShape<typeof QueryEventSchema>> {
  const { name, payload, nodes, tags, requestAck, relayFactor, timeoutMs } = request;
  if (name === "") throw new RuntimeError("invalid", 'Cannot ask "": a query needs a name');
  if (timeoutMs > MAX_QUERY_MS) {
    throw new RuntimeError("invalid", `Cannot accept timeout_ms "${timeoutMs}": at most ${MAX_QUERY_MS}`);
  }
  for (const node of nodes) known(membership, node);
  const events = new Channel<MessageInitShape<typeof QueryEventSchema>>("query answers");
  const asked = membership.ask(name, {
    payload,
    filters: [
      ...nodes.length > 0 ? [{ kind: "nodes" as const, nodes }] : [],
      ...Object.entries(tags).map(([tag, expr]) => ({ kind: "tag" as const, tag, expr })),
    ],
    requestAck,
    relayFactor,
    timeoutMs: timeoutMs || undefined,
    signal,
    onAck: (from) => events.push({ event: { case: "ack", value: from } }),
    onResponse: (from, answer) =>
      events.push({
        event: { case: "answer", value: { from, payload: answer as Uint8Array<ArrayBuffer> } },
      }),
  });
  asked.then(() => events.end(), (error) => events.end(error));
  yield* events.read(signal);
}

async function manageKeys(membership: Membership, { operation, key }: ManageKeysRequest) {
  if (!membership.isEncrypted) {
    throw new RuntimeError(
      "precondition",
      `Cannot ${operation} gossip keys: this cluster runs without encryption`,
    );
  }
  if (operation === "show") {
    const keys = membership.keys.map((each, i) => ({
      key: each.toBase64(),
      nodes: 1,
      primaryOn: i === 0 ? 1 : 0,
    }));
    return { members: 1, answers: 1, errors: {}, keys };
  }
  if (operation === "rotate") return await rotateKeys(membership, key);
  if (operation !== "list" && operation !== "install" && operation !== "use" && operation !== "remove") {
    throw new RuntimeError(
      "invalid",
      `Cannot accept operation "${operation.slice(0, 40)}": it is none of keys'`,
    );
  }
  const bytes = operation === "list" ? undefined : keyBytes(operation, key);
  if (operation === "remove") await checkHeld(membership, bytes!.toBase64());
  const result = await membership.manageKeys(operation, bytes);
  return {
    ...outcome(result),
    keys: [...result.keys].map(([each, nodes]) => ({
      key: each,
      nodes,
      primaryOn: result.primaryKeys.get(each) ?? 0,
    })),
  };
}

/** One who mistypes a key must not take it for removed. Throws `not-found`. */
async function checkHeld(membership: Membership, key: string): Promise<void> {
  if (membership.keys.some((each) => each.toBase64() === key)) return;
  // Others may have it still, where an earlier removal did not reach them.
  const { keys } = await membership.manageKeys("list");
  if (keys.has(key)) return;
  throw new RuntimeError("not-found", "Cannot remove the gossip key: no member that answers has this key");
}

/** A new key for the whole cluster; one made here where none is given. Where it stops, no living member is cut off. */
async function rotateKeys(membership: Membership, given: string) {
  const key = given === ""
    ? crypto.getRandomValues(new Uint8Array(NEW_KEY_BYTES))
    : keyBytes("rotate to", given);
  const { step, result } = await membership.rotateKey(key);
  const primaryOn = step === "install" ? 0 : result.members;
  return { ...outcome(result), step, keys: [{ key: key.toBase64(), nodes: result.members, primaryOn }] };
}

function outcome({ members, answers, errors }: KeyResult) {
  return { members, answers, errors: Object.fromEntries(errors) };
}

function keyBytes(operation: string, key: string): Uint8Array {
  try {
    return parseGossipKey(key);
  } catch (error) {
    throw new RuntimeError("invalid", `Cannot ${operation} the gossip key: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

function known(membership: Membership, name: string): ClusterMember {
  const member = membership.named(name);
  if (member !== undefined) return member;
  throw new RuntimeError("not-found", `Cannot find node "${name.slice(0, 100)}": no member has this name`);
}
