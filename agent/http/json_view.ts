import { toJson } from "@bufbuild/protobuf";
import {
  type NodesStateResponse,
  NodesStateResponseSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";

/** 64-bit fields that protobuf writes as strings and the original's JSON as numbers. */
const NUMBERS = new Set(["generation", "created_at_ms", "started_at_ms"]);

/** The list as the original's HTTP API writes it: names as in the .proto, numbers as numbers. */
export function listView(list: NodesStateResponse): unknown {
  const text = JSON.stringify(toJson(NodesStateResponseSchema, list, { useProtoFieldName: true }));
  return JSON.parse(
    text,
    (key, value) => NUMBERS.has(key) && typeof value === "string" ? Number(value) : value,
  );
}
