import { fromJson, toJson } from "@bufbuild/protobuf";
import {
  type VmSpawnRequest,
  VmSpawnRequestSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";

/** Label of the Go original: the spawn request as JSON. */
export const PAYLOAD_LABEL = "hypercore-request-payload";
/** Labels of this agent. */
export const LABEL_PREFIX = "hypercore.agent/";
/** containerd takes at most 4096 bytes of key and value together. */
export const MAX_LABEL_BYTES = 4_096;

const CHUNK_LENGTH = 3_900;
/** More chunks than the largest request that {@linkcode parseSpawn} lets through can fill. */
const MAX_CHUNKS = 2_048;

/** What the labels of a container say about its workload: all that an agent must know again after a restart. */
export interface WorkloadRecord {
  request: VmSpawnRequest;
  /** Set once the spawn has succeeded; a container without it was left half-made by an agent that died. */
  isComplete: boolean;
  /** A stop was asked for; it is carried on until the container is gone. */
  isStopping: boolean;
  generation: number;
  restarts: number;
  /** Consecutive short runs and failed starts up to the newest start. */
  failures: number;
  createdAtMs: number;
  startedAtMs: number;
  /** Of the newest run that ended before the current one. */
  exitCode?: number;
}

/** The labels of a fresh container. The request goes in whole, in pieces when it is longer than a label may be. */
export function encodeLabels(record: WorkloadRecord): Record<string, string> {
  const text = requestText(record.request);
  const labels = encodeState(record);
  if (PAYLOAD_LABEL.length + text.length <= MAX_LABEL_BYTES) return { ...labels, [PAYLOAD_LABEL]: text };
  const count = Math.ceil(text.length / CHUNK_LENGTH);
  for (let i = 0; i < count; i++) {
    labels[`${LABEL_PREFIX}payload.${i}`] = text.slice(i * CHUNK_LENGTH, (i + 1) * CHUNK_LENGTH);
  }
  labels[`${LABEL_PREFIX}payload-chunks`] = String(count);
  const short = requestText({
    ...record.request,
    env: [],
    args: [],
    ports: {},
    runtime: undefined,
    labels: {},
    policyJson: "",
  });
  return { ...labels, [PAYLOAD_LABEL]: short };
}

/** The labels that change over a workload's life. */
export function encodeState(record: Omit<WorkloadRecord, "request">): Record<string, string> {
  const state: Record<string, string | number> = {
    complete: record.isComplete ? "1" : "0",
    stopping: record.isStopping ? "1" : "0",
    generation: record.generation,
    restarts: record.restarts,
    failures: record.failures,
    "created-at-ms": record.createdAtMs,
    "started-at-ms": record.startedAtMs,
    "exit-code": record.exitCode ?? "",
  };
  return Object.fromEntries(Object.entries(state).map(([key, value]) => [LABEL_PREFIX + key, String(value)]));
}

/** The label that marks a stop as asked for. */
export const STOPPING_LABELS: Readonly<Record<string, string>> = { [`${LABEL_PREFIX}stopping`]: "1" };

/**
 * Reads the labels of a container. Nothing when they are not of this program (a container of somebody else in the same
 * namespace); an Error value when they are, but cannot be read.
 */
export function decodeLabels(labels: Readonly<Record<string, string>>): WorkloadRecord | Error | undefined {
  if (labels[PAYLOAD_LABEL] === undefined || labels[`${LABEL_PREFIX}generation`] === undefined) {
    return undefined;
  }
  try {
    const request = fromJson(VmSpawnRequestSchema, JSON.parse(payloadText(labels)), {
      ignoreUnknownFields: true,
    });
    const exitCode = labels[`${LABEL_PREFIX}exit-code`] ?? "";
    return {
      request,
      isComplete: labels[`${LABEL_PREFIX}complete`] === "1",
      isStopping: labels[`${LABEL_PREFIX}stopping`] === "1",
      generation: count(labels, "generation"),
      restarts: count(labels, "restarts"),
      failures: count(labels, "failures"),
      createdAtMs: count(labels, "created-at-ms"),
      startedAtMs: count(labels, "started-at-ms"),
      ...(exitCode !== "" && { exitCode: Number(exitCode) }),
    };
  } catch (error) {
    return new Error("Cannot read the labels of a workload: the spawn request in them is damaged", {
      cause: error,
    });
  }
}

function payloadText(labels: Readonly<Record<string, string>>): string {
  const chunks = Number(labels[`${LABEL_PREFIX}payload-chunks`] ?? 0);
  if (!(chunks > 0)) return labels[PAYLOAD_LABEL];
  if (chunks > MAX_CHUNKS) throw new Error(`more than ${MAX_CHUNKS} pieces`);
  return Array.from({ length: chunks }, (_, i) => labels[`${LABEL_PREFIX}payload.${i}`] ?? "").join("");
}

/** The request as JSON in ASCII, so that a character is a byte wherever it is cut. */
function requestText(request: VmSpawnRequest): string {
  const text = JSON.stringify(toJson(VmSpawnRequestSchema, request, { useProtoFieldName: true }));
  return text.replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function count(labels: Readonly<Record<string, string>>, key: string): number {
  const value = Number(labels[LABEL_PREFIX + key] ?? 0);
  return Number.isSafeInteger(value) && value >= 0 ? value : 0;
}
