import { PolicyParser } from "../../agent/policy/parse.ts";
import { PolicyError, problemText } from "../../agent/policy/policy_error.ts";
import type {
  ExplainResponse,
  NetworkGrant,
  NodeVerdict,
  PolicyViolation,
} from "../../proto/gen/hypercore/v1/policy_pb.ts";
import { apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { exitCode, UsageError } from "../exit.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";
import { printable } from "../parse/values.ts";
import { readPolicy } from "../policy_file.ts";
import { formatTable } from "../table.ts";
import { spawnRequest } from "./spawn.ts";

/** `hypercore policy check FILE…`: every problem with its line; exit code 1 when there is one. */
export async function policyCheck(
  files: readonly string[],
  options: { json?: true },
  io: Io,
): Promise<number> {
  const parser = new PolicyParser();
  const reports = files.map((file) => checkFile(file, parser, io));
  if (options.json) await io.out(`${JSON.stringify(reports, null, 2)}\n`);
  else {
    for (const { file, valid, name, mode, id, problems, notes } of reports) {
      if (valid) await io.out(`${file}: valid, policy "${name}" (${mode}), ${id}\n`);
      for (const problem of problems) await io.err(`${file}: ${printable(problemText(problem), MAX_LINE)}\n`);
      for (const note of notes) await io.err(`${file}: note: ${note}\n`);
    }
  }
  return reports.every(({ valid }) => valid) ? exitCode.ok : exitCode.failed;
}

/** `hypercore policy show`. */
export async function policyShow(options: ClientOptions & { json?: true }, io: Io): Promise<number> {
  const api = connectApi(options, io);
  const { policyId, name, mode, description, source, loadedAtMs, reloadError, policyJson } = await api
    .policies
    .get({}, { timeoutMs: CALL_TIMEOUT_MS }).catch((error) => {
      throw apiError("Cannot show the policy", api, error);
    });
  if (options.json) {
    const policy = policyId === "" ? null : JSON.parse(policyJson);
    const loadedAt = policyId === "" ? null : new Date(Number(loadedAtMs)).toISOString();
    await io.out(
      `${JSON.stringify({ id: policyId, name, mode, source, loadedAt, reloadError, policy }, null, 2)}\n`,
    );
    return exitCode.ok;
  }
  if (policyId === "") {
    await io.out("no policy: every node takes whatever it has room for\n");
    return exitCode.ok;
  }
  await io.out(`${name} (${mode}) ${policyId}\n`);
  if (description !== "") await io.out(`${printable(description, MAX_LINE)}\n`);
  await io.out(`${source}, read ${new Date(Number(loadedAtMs)).toISOString()}\n`);
  if (reloadError !== "") {
    await io.err(`hypercore: the file is not in force as it is now: ${printable(reloadError, MAX_LINE)}\n`);
  }
  return exitCode.ok;
}

/** Options of `hypercore policy explain`. */
export interface ExplainOptions extends ClientOptions {
  imageRef?: string;
  image?: string;
  cpu?: number;
  mem?: number;
  ports?: ReadonlyMap<number, number>;
  env?: readonly string[];
  label?: readonly (readonly [string, string])[];
  runtime?: string;
  alone?: true;
  json?: true;
}

/** `hypercore policy explain [FILE] --image REF`: exit code 1 when no node would take it. */
export async function policyExplain(
  file: string | undefined,
  options: ExplainOptions,
  io: Io,
): Promise<number> {
  if ((options.imageRef ?? options.image) === undefined) throw new UsageError("of which image? Give --image");
  if (options.alone && file === undefined) {
    throw new UsageError("--alone: there is no policy file to take alone");
  }
  const policy = await readPolicy(file, io);
  const api = connectApi(options, io);
  // Values of the environment are nobody's business here.
  const env = options.env?.map((entry) => `${entry.split("=", 1)[0]}=`);
  const request = { ...spawnRequest([], { ...options, env }, {}), ...policy };
  const answer = await api.policies.explain(
    { request, alone: options.alone === true },
    { timeoutMs: CALL_TIMEOUT_MS },
  ).catch((error) => {
    throw apiError(`Cannot explain "${request.imageRef}"`, api, error);
  });
  await io.out(options.json ? `${JSON.stringify(explainJson(answer), null, 2)}\n` : explainText(answer));
  return answer.nodes.some(({ admitted }) => admitted) ? exitCode.ok : exitCode.failed;
}

/** Of a message in words, what is shown. */
const MAX_LINE = 4_000;

function checkFile(file: string, parser: PolicyParser, io: Io) {
  try {
    const { policy: { id, name, mode }, notes } = parser.parse(io.readTextFile(file), file);
    return { file, valid: true, id, name, mode, problems: [], notes };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const problems = error instanceof PolicyError ? error.problems : [{ path: "", message }];
    return { file, valid: false, problems, notes: [] };
  }
}

function explainText(answer: ExplainResponse): string {
  const { name, mode, rules, requestViolations, nodes } = answer;
  const header = name === "" ? "no policy" : `policy ${name} (${mode})`;
  const asked = rules.length === 0 ? [] : [`of a node: ${rules.join("; ")}`];
  const lines = [
    header,
    ...asked,
    ...networkLines(answer.network),
    ...requestViolations.map((violation) => `the request: ${violationText(violation)}`),
    ...nodes.length === 0 ? ["there is no node"] : [],
  ].map((line) => `${printable(line, MAX_LINE)}\n`);
  const table = formatTable(
    ["NODE", "TAKES IT", "SCORE", "BY TERM", "WHY"],
    nodes.map((node) => [
      node.name,
      node.admitted ? "yes" : "no",
      node.score.toFixed(3),
      node.terms.map(({ name, weight, value }) => `${name} ${value.toFixed(2)}×${weight.toFixed(2)}`).join(
        " ",
      ),
      whyText(node, { rules, requestViolations }),
    ]),
  );
  return lines.join("") + (nodes.length === 0 ? "" : `\n${table}`);
}

function whyText(
  { admitted, violations }: NodeVerdict,
  { rules, requestViolations }: Pick<ExplainResponse, "rules" | "requestViolations">,
): string {
  if (violations.length > 0) return violations.map(violationText).join("; ");
  if (!admitted && requestViolations.length > 0) return "see the request";
  return rules.length === 0
    ? "nothing is asked of it"
    : `keeps ${rules.length === 1 ? "the rule" : `all ${rules.length} rules`}`;
}

function violationText({ rule, reason, advisory }: PolicyViolation): string {
  return `${rule}: ${reason}${advisory ? " (noted only)" : ""}`;
}

function networkLines(network: NetworkGrant | undefined): string[] {
  if (network === undefined) return [];
  const { limitsEgress, egress, limitsIngress, ingressPorts } = network;
  return [
    ...limitsEgress ? [`it may reach: ${egress.join("; ") || "nothing"}`] : [],
    ...limitsIngress ? [`its open ports: ${ingressPorts.join(", ") || "none"}`] : [],
  ];
}

function explainJson({ policyId, name, mode, rules, requestViolations, network, nodes }: ExplainResponse) {
  const violation = ({ rule, reason, advisory, policy }: PolicyViolation) => ({
    rule,
    reason,
    advisory,
    policy,
  });
  return {
    policy: { id: policyId, name, mode },
    rules,
    request: requestViolations.map(violation),
    egress: network?.limitsEgress ? network.egress : null,
    ingressPorts: network?.limitsIngress ? network.ingressPorts : null,
    nodes: nodes.map((node) => ({
      id: node.id,
      name: node.name,
      admitted: node.admitted,
      score: node.score,
      terms: node.terms.map(({ name, weight, value, measured }) => ({
        name,
        weight,
        value,
        measured: measured ?? null,
      })),
      violations: node.violations.map(violation),
    })),
  };
}
