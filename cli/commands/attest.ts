import type { AttestResponse } from "../../proto/gen/hypercore/v1/beacon_pb.ts";
import { apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { exitCode, UsageError } from "../exit.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";
import { printable } from "../parse/values.ts";

/** Options of `hypercore attest`. */
export interface AttestOptions extends ClientOptions {
  json?: true;
  type?: "node-identity" | "state-hash" | "workload";
  workload?: string;
}

/** `hypercore attest [NODE]`. Exit code 0 only for what was verified. */
export async function attest(node: string | undefined, options: AttestOptions, io: Io): Promise<number> {
  const { type, workload } = options;
  if (node === undefined && workload === undefined) throw new UsageError("which node? give its name or id");
  if (type === "workload" && workload === undefined) {
    throw new UsageError("--type workload needs --workload ID");
  }
  if (type !== undefined && type !== "workload" && workload !== undefined) {
    throw new UsageError(`--workload and --type ${type} exclude each other`);
  }
  const api = connectApi(options, io);
  const answer = await api.beacons.attest(
    { node: node ?? "", type: wireType(type), workload: workload ?? "" },
    { timeoutMs: CALL_TIMEOUT_MS },
  ).catch((error) => {
    throw apiError(`Cannot ask "${node ?? workload}" for an attestation`, api, error);
  });
  await io.out(options.json ? `${JSON.stringify(answerJson(answer), null, 2)}\n` : answerText(answer));
  return answer.verified ? exitCode.ok : exitCode.failed;
}

function wireType(type: AttestOptions["type"]): string {
  return type === undefined ? "" : type.toUpperCase().replace("-", "_");
}

function answerJson(answer: AttestResponse) {
  const { nodeName, nodeId, type, verified, reason, statement, signature, publicKey, latencyMs, remark } =
    answer;
  return {
    node: nodeName,
    nodeId,
    type,
    verified,
    ...(reason !== "" && { reason }),
    ...(remark !== "" && { remark }),
    ...(statement !== "" && {
      statement: JSON.parse(statement),
      signed: statement,
      signature: signature.toBase64(),
      publicKey: publicKey.toBase64(),
    }),
    latencyMs: Math.round(latencyMs * 1_000) / 1_000,
  };
}

function answerText(answer: AttestResponse): string {
  const { nodeName, nodeId, type, verified, reason, statement, latencyMs, remark } = answer;
  const rows: [string, string][] = [
    ["node", `${nodeName} (${nodeId})`],
    ["attests", type],
    ["result", verified ? `VERIFIED in ${latencyMs.toFixed(1)} ms` : `REFUSED: ${reason}`],
    ...(remark === "" ? [] : [["remark", remark] as [string, string]]),
    ...Object.entries<string | number>(statement === "" ? {} : JSON.parse(statement))
      .filter(([key]) => !["node", "nonce", "type"].includes(key))
      .map(([key, value]): [string, string] => [key, String(value)]),
  ];
  const width = Math.max(...rows.map(([label]) => label.length));
  return rows.map(([label, value]) => `${label.padEnd(width)}  ${printable(value)}\n`).join("");
}
