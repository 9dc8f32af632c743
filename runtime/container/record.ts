import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Any, timestampMs } from "@bufbuild/protobuf/wkt";
import type {
  Container,
  ContainerSchema,
} from "../../proto/gen/containerd/services/containers/v1/containers_pb.ts";
import { type Process, Status } from "../../proto/gen/containerd/v1/types/task_pb.ts";
import type { RuntimeSelection } from "../catalog/mod.ts";
import { anyJson, RUNTIME_SPEC_TYPE_URL } from "../containerd/any.ts";
import type { ContainerInfo, ContainerStatus } from "../engine.ts";
import { RuntimeError } from "../errors.ts";
import type { NetworkRules } from "../network/mod.ts";

/** Labels under this prefix are the engine's own. */
export const ENGINE_PREFIX = "hypercore.engine/";

/** On a container's snapshot: whose it is. */
export const SNAPSHOT_OWNER_LABEL = `${ENGINE_PREFIX}container`;

/** Longest key and value of a containerd label together, in bytes. */
export const MAX_LABEL_BYTES = 4096;

/** Most bytes of all labels of a container together, as JSON. */
export const MAX_LABELS_BYTES = 1 << 20;

/** Labels too long for containerd are kept in this extension of the record. */
const LONG_LABELS = `${ENGINE_PREFIX}long-labels`;

/**
 * How far a container is. Only a `ready` one is shown: one whose creation or removal an agent did not live to finish
 * is removed by garbage collection.
 */
export type Phase = "creating" | "ready" | "removing";

/** What the engine keeps about a container besides what containerd has fields for. */
export interface EngineRecord {
  phase: Phase;
  imageDigest: string;
  /** Snapshot that a restart begins from. */
  chainId: string;
  /** Number of the signal that asks it to stop. */
  stopSignal: number;
  tty: boolean;
  stdin: boolean;
  runtime: RuntimeSelection;
  isVm: boolean;
  address: string;
  /** What narrows its network; absent or null means nothing. */
  networkRules?: NetworkRules | null;
}

/** The fields of a new container record. */
export function encodeRecord(options: {
  id: string;
  image: string;
  labels: Readonly<Record<string, string>>;
  record: EngineRecord;
  runtime: { name: string; options?: Any };
  spec: Record<string, unknown>;
  snapshotter: string;
  snapshotKey: string;
}): MessageInitShape<typeof ContainerSchema> {
  const { id, image, runtime, snapshotter, snapshotKey } = options;
  return {
    id,
    image,
    runtime,
    snapshotter,
    snapshotKey,
    spec: anyJson(RUNTIME_SPEC_TYPE_URL, options.spec),
    ...encodeLabels(id, { ...options.labels, ...recordLabels(options.record) }),
  };
}

/** Labels and extensions that carry these labels. Throws `invalid` when they are too many. */
export function encodeLabels(
  id: string,
  labels: Readonly<Record<string, string>>,
): { labels: Record<string, string>; extensions: Record<string, Any> } {
  const total = byteLength(JSON.stringify(labels));
  if (total > MAX_LABELS_BYTES) {
    throw new RuntimeError(
      "invalid",
      `Cannot label container "${id}": ${total} bytes of labels, and ${MAX_LABELS_BYTES} are the most`,
    );
  }
  const short: Record<string, string> = {};
  const long: Record<string, string> = {};
  for (const [key, value] of Object.entries(labels)) {
    (byteLength(key) + byteLength(value) > MAX_LABEL_BYTES ? long : short)[key] = value;
  }
  return { labels: short, extensions: { [LONG_LABELS]: anyJson("hypercore.engine/Labels", long) } };
}

/** All labels of a record, the engine's own too. */
export function decodeLabels(container: Container): Record<string, string> {
  const long = container.extensions[LONG_LABELS];
  return { ...container.labels, ...(long === undefined ? {} : decodeJson(long)) as Record<string, string> };
}

/** The engine's labels for a record. */
export function recordLabels(record: Partial<EngineRecord>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(record).map(([key, value]) => [ENGINE_PREFIX + key, JSON.stringify(value)]),
  );
}

/** What the engine noted; undefined for a container that is not ours. */
export function decodeRecord(container: Container): EngineRecord | undefined {
  const labels = decodeLabels(container);
  const read = <T>(key: keyof EngineRecord, otherwise: T): T => {
    const text = labels[ENGINE_PREFIX + key];
    try {
      return text === undefined ? otherwise : JSON.parse(text) as T;
    } catch {
      // Somebody edited the label by hand.
      return otherwise;
    }
  };
  const phase = read<Phase | undefined>("phase", undefined);
  if (phase === undefined) return undefined;
  return {
    phase,
    imageDigest: read("imageDigest", ""),
    chainId: read("chainId", ""),
    stopSignal: read("stopSignal", SIGTERM),
    tty: read("tty", false),
    stdin: read("stdin", false),
    runtime: read("runtime", { name: "runc", options: {} }),
    isVm: read("isVm", false),
    address: read("address", ""),
    networkRules: read<NetworkRules | null>("networkRules", null),
  };
}

/** A record and its task, if it has one, as the agent sees them. */
export function containerInfo(options: {
  container: Container;
  record: EngineRecord;
  task: Process | undefined;
  logPath: string;
}): ContainerInfo {
  const { container, record, task, logPath } = options;
  const status = task === undefined ? "no-task" : STATUS[task.status];
  return {
    id: container.id,
    image: container.image,
    imageDigest: record.imageDigest,
    runtime: record.runtime.name,
    labels: Object.fromEntries(
      Object.entries(decodeLabels(container)).filter(([key]) => !key.startsWith(ENGINE_PREFIX)),
    ),
    status,
    pid: status === "no-task" ? 0 : task!.pid,
    ...(status === "stopped" && {
      exitCode: task!.exitStatus,
      exitedAtMs: task!.exitedAt ? timestampMs(task!.exitedAt) : 0,
    }),
    ...(record.address !== "" && { address: record.address }),
    ...(record.networkRules && { networkRules: record.networkRules }),
    createdAtMs: container.createdAt ? timestampMs(container.createdAt) : 0,
    tty: record.tty,
    logPath,
  };
}

/** The JSON in an `Any` made by `anyJson`. */
export function decodeJson(any: Any): unknown {
  return JSON.parse(new TextDecoder().decode(any.value));
}

const SIGTERM = 15;

/** A task in an unknown state (its shim does not answer) is as good as none. */
const STATUS: Record<Status, ContainerStatus> = {
  [Status.UNKNOWN]: "no-task",
  [Status.CREATED]: "created",
  [Status.RUNNING]: "running",
  [Status.STOPPED]: "stopped",
  [Status.PAUSED]: "paused",
  [Status.PAUSING]: "paused",
};

function byteLength(text: string): number {
  return new TextEncoder().encode(text).length;
}
