import type { Member } from "../../proto/gen/hypercore/v1/cluster_pb.ts";
import { apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { exitCode, UsageError } from "../exit.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";
import { formatTable } from "../table.ts";

/** What a member can be. */
const STATUSES: readonly string[] = ["alive", "leaving", "left", "failed"];

/** `hypercore members`. */
export async function members(
  options: ClientOptions & { json?: true; status?: string; detailed?: true },
  io: Io,
): Promise<number> {
  if (options.status !== undefined && !STATUSES.includes(options.status)) {
    throw new UsageError(`--status: "${options.status}" is none of ${STATUSES.join(", ")}`);
  }
  const api = connectApi(options, io);
  const answer = await api.admin.members({}, { timeoutMs: CALL_TIMEOUT_MS }).catch((error) => {
    throw apiError("Cannot list members", api, error);
  });
  const wanted = answer.members.filter((member) =>
    options.status === undefined || member.status === options.status
  );
  wanted.sort((a, b) => a.name < b.name ? -1 : 1);
  if (options.json) {
    await io.out(`${JSON.stringify(wanted.map(memberJson), null, 2)}\n`);
    return exitCode.ok;
  }
  const header = ["NAME", "ID", "ADDRESS", "STATUS", "KIND", "VERSION", "VERIFIED", "WORKLOADS", "RTT"];
  await io.out(formatTable(
    options.detailed ? [...header, "TAGS"] : header,
    wanted.map((member) => [
      member.isSelf ? `${member.name}*` : member.name,
      member.id,
      member.address,
      member.cordoned ? `${member.status},cordoned` : member.status,
      member.kind,
      member.agentVersion,
      member.verified ? "yes" : "no",
      String(member.workloads),
      member.rttMs === undefined ? "" : `${member.rttMs.toFixed(1)} ms`,
      ...options.detailed ? [tagsText(member)] : [],
    ]),
  ));
  if (!answer.encrypted) await io.err("gossip is not encrypted\n");
  return exitCode.ok;
}

function memberJson(member: Member) {
  const {
    name,
    id,
    address,
    status,
    tags,
    kind,
    agentVersion,
    cordoned,
    workloads,
    rttMs,
    isSelf,
    verified,
  } = member;
  return {
    name,
    id,
    address,
    status,
    tags,
    kind,
    agentVersion,
    verified,
    cordoned,
    workloads,
    rttMs,
    isSelf,
  };
}

function tagsText({ tags }: Member): string {
  return Object.entries(tags).sort(([a], [b]) => a < b ? -1 : 1).map(([key, value]) => `${key}=${value}`)
    .join(",");
}
