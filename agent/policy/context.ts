import { create } from "@bufbuild/protobuf";
import { type PolicyContext, PolicyContextSchema } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { Policy } from "./policy.ts";

/** What a node's state says of its policy. `tags` are the node's own, as `key=value`, sorted. */
export function policyContext(
  policy: Policy | undefined,
  tags: Readonly<Record<string, string>>,
): PolicyContext {
  return create(PolicyContextSchema, {
    policyId: policy?.id ?? "",
    enforcementLevel: policy?.mode ?? "",
    tags: Object.entries(tags).map(([key, value]) => `${key}=${value}`).sort(),
  });
}
