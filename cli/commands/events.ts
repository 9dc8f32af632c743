import type { ClusterEvent } from "../../proto/gen/hypercore/v1/cluster_pb.ts";
import { apiError, connectApi } from "../api_client.ts";
import { exitCode } from "../exit.ts";
import { untilInterrupted } from "../interrupt.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";
import { printable } from "../parse/values.ts";

/** `hypercore events`: until interrupted. With `--json`, one object a line. */
export async function events(options: ClientOptions & { json?: true }, io: Io): Promise<number> {
  const api = connectApi(options, io);
  using interrupt = untilInterrupted(io);
  try {
    for await (const event of api.admin.watchCluster({}, { signal: interrupt.signal, timeoutMs: 0 })) {
      await io.out(`${options.json ? JSON.stringify(eventJson(event)) : line(event)}\n`);
    }
  } catch (error) {
    if (!interrupt.signal.aborted) throw apiError("Cannot follow the cluster's events", api, error);
  }
  return exitCode.ok;
}

function eventJson({ atMs, node, event }: ClusterEvent) {
  const at = new Date(Number(atMs)).toISOString();
  switch (event.case) {
    case "member":
      return { at, node, kind: "member", what: event.value };
    case "workload":
      return {
        at,
        node,
        kind: "workload",
        what: event.value.type,
        id: event.value.id,
        detail: event.value.detail,
      };
    case "user":
      return { at, node, kind: "user", what: event.value.name, ...payloadJson(event.value.payload) };
    case "note":
      return { at, node, kind: "note", what: event.value };
    case undefined:
      return { at, node, kind: "unknown", what: "" };
  }
}

/** A payload is what the sender put into it: text nearly always, else base64. */
function payloadJson(payload: Uint8Array): { payload: string } | { payloadBase64: string } {
  try {
    return { payload: new TextDecoder("utf-8", { fatal: true }).decode(payload) };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return { payloadBase64: payload.toBase64() };
  }
}

function line(event: ClusterEvent): string {
  const { at, node, kind, what, ...rest } = eventJson(event);
  const words = [at, node || "-", kind, what, ...Object.values(rest)];
  return words.filter((word) => word !== undefined && word !== "").map((word) => printable(word)).join("  ");
}
