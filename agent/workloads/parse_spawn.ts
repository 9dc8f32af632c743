import type {
  MicroVMSpec,
  RuntimeSelection,
  VmSpawnRequest,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import * as limits from "./limits.ts";
import type { PortMapping, WorkloadSpec } from "./spec.ts";

const MEBIBYTE = 1_048_576;
const ID = /^[0-9a-f]{12}$/;
const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const ENV_KEY = /^[^\s=\p{Cc}]{1,256}$/u;
const LABEL_KEY = /^[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?$/;
const POLICY_NAME = /^[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,127}$/;
const RUNTIME_NAME = /^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/;
/** `[host[:port]/]path[:tag][@algorithm:hex]`, as the distribution spec's grammar has it. */
const IMAGE_REF = new RegExp(
  "^(?:(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\\[[0-9a-fA-F:]+\\])(?::[0-9]{1,5})?/)?" +
    "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*)*" +
    "(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,128})?$",
);

const utf8 = new TextEncoder();

/** What the node itself brings to the check of a request. */
export interface ParseContext {
  /** Ports this agent listens on itself; no workload may have them. */
  reservedPorts: ReadonlySet<number>;
  /** Name of this node: a request for another one is refused. */
  nodeName: string;
}

/**
 * Checks a spawn request, field by field, and fills in the defaults. Throws `invalid` with the field, the value (but
 * never an environment variable's) and the reason.
 */
export function parseSpawn(request: VmSpawnRequest, context: ParseContext): WorkloadSpec {
  if (request.node !== "" && request.node !== context.nodeName) {
    throw invalid("node", request.node, `this node is "${context.nodeName}"`);
  }
  checkPolicy(request);
  return {
    image: parseImage(request.imageRef),
    milliCpus: parseCpus(request.cores, request.milliCpus),
    memoryBytes: MEBIBYTE * inRange(request.memory || limits.DEFAULT_MEMORY_MIB, {
      field: "memory",
      min: limits.MIN_MEMORY_MIB,
      max: limits.MAX_MEMORY_MIB,
      unit: "MiB",
    }),
    pidsLimit: inRange(request.pidsLimit || limits.DEFAULT_PIDS, {
      field: "pids_limit",
      min: 1,
      max: limits.MAX_PIDS,
    }),
    ports: parsePorts(request.ports, context.reservedPorts),
    env: parseEnv(request.env),
    args: parseArgs(request.args),
    tty: request.tty,
    stdin: request.stdin,
    name: parseName(request.name),
    runtime: parseRuntime(request.runtime),
    labels: parseLabels(request.labels),
  };
}

/** Checks the labels of a workload. */
export function parseLabels(labels: Readonly<Record<string, string>>): Record<string, string> {
  const entries = Object.entries(labels);
  if (entries.length > limits.MAX_LABELS) {
    throw invalid("labels", String(entries.length), `at most ${limits.MAX_LABELS} labels`);
  }
  for (const [key, value] of entries) {
    if (key.length > limits.MAX_LABEL_KEY_LENGTH || !LABEL_KEY.test(key)) {
      throw invalid(
        "labels",
        key,
        `a key is 1 to ${limits.MAX_LABEL_KEY_LENGTH} of letters, digits, ., _, / and -, a letter or digit at each end`,
      );
    }
    if (value.length > limits.MAX_LABEL_VALUE_LENGTH || /\p{Cc}/u.test(value)) {
      throw invalid(
        "labels",
        key,
        `its value has more than ${limits.MAX_LABEL_VALUE_LENGTH} characters, or a control character`,
      );
    }
  }
  return { ...labels };
}

/** Whether it is an id, and not a name. */
export function isWorkloadId(text: string): boolean {
  return ID.test(text);
}

/** Checks an id or name that a caller gave. Throws `invalid`; anything but an id or a name is one. */
export function parseIdOrName(text: string): string {
  if (ID.test(text) || NAME.test(text)) return text;
  throw invalid("id", text, "an id is 12 hex digits, a name 1 to 63 of a-z, 0-9 and -");
}

/** Checks the arguments of an exec or of a workload. */
export function parseArgs(args: readonly string[]): string[] {
  if (args.length > limits.MAX_ARGS) {
    throw invalid("args", String(args.length), `at most ${limits.MAX_ARGS} arguments`);
  }
  let bytes = 0;
  for (const arg of args) {
    if (arg.includes("\0")) throw invalid("args", arg, "an argument holds a NUL");
    bytes += utf8.encode(arg).length + 1;
  }
  if (bytes > limits.MAX_ARGS_BYTES) {
    throw invalid("args", `${bytes} bytes`, `at most ${limits.MAX_ARGS_BYTES} bytes in all`);
  }
  return [...args];
}

/** Checks `KEY=value` entries. Errors name the key and the entry's place, never the value. */
export function parseEnv(env: readonly string[]): string[] {
  if (env.length > limits.MAX_ENV_ENTRIES) {
    throw invalid("env", String(env.length), `at most ${limits.MAX_ENV_ENTRIES} entries`);
  }
  const seen = new Set<string>();
  let total = 0;
  env.forEach((entry, index) => {
    const equals = entry.indexOf("=");
    // Without "=" the entry may be a value that lost its key: it is not shown.
    if (equals < 0) throw invalid(`env[${index}]`, "…", "an entry is KEY=value, this one has no =");
    const key = entry.slice(0, equals);
    if (!ENV_KEY.test(key)) {
      throw invalid(
        `env[${index}]`,
        key,
        "a key is 1 to 256 characters without spaces and control characters",
      );
    }
    if (seen.has(key)) throw invalid(`env[${index}]`, key, "the key is listed twice");
    seen.add(key);
    if (entry.includes("\0")) throw invalid(`env[${index}]`, key, "its value holds a NUL");
    const bytes = utf8.encode(entry).length;
    if (bytes > limits.MAX_ENV_ENTRY_BYTES) {
      throw invalid(`env[${index}]`, key, `an entry has at most ${limits.MAX_ENV_ENTRY_BYTES} bytes`);
    }
    total += bytes;
  });
  if (total > limits.MAX_ENV_BYTES) {
    throw invalid("env", `${total} bytes`, `at most ${limits.MAX_ENV_BYTES} bytes in all`);
  }
  return [...env];
}

/** Checks the shape of an image reference; the registry code parses it in full. */
export function parseImage(text: string): string {
  if (text === "") throw invalid("image_ref", text, "it is empty");
  if (text.length > limits.MAX_IMAGE_REF_LENGTH) {
    throw invalid("image_ref", text, `at most ${limits.MAX_IMAGE_REF_LENGTH} characters`);
  }
  if (!IMAGE_REF.test(text)) {
    throw invalid("image_ref", text, "an image reference is [registry/]repository[:tag][@digest]");
  }
  return text;
}

/** The policy's shape only: what it says is read where it is applied. */
function checkPolicy({ policy, policyJson }: VmSpawnRequest): void {
  if (policy !== "" && !POLICY_NAME.test(policy)) {
    throw invalid("policy", policy, "a policy's name is 1 to 128 of letters, digits, ., _ and -");
  }
  if (policy !== "" && policyJson !== "") throw invalid("policy", policy, "there is a policy_json too");
  const bytes = utf8.encode(policyJson).length;
  if (bytes > limits.MAX_SPAWN_POLICY_BYTES) {
    throw invalid("policy_json", `${bytes} bytes`, `at most ${limits.MAX_SPAWN_POLICY_BYTES} bytes`);
  }
}

function parseCpus(cores: number, milliCpus: number): number {
  inRange(cores, { field: "cores", min: 0, max: limits.MAX_CORES });
  if (milliCpus === 0) return (cores || limits.DEFAULT_CORES) * 1000;
  const max = (cores || limits.MAX_CORES) * 1000;
  return inRange(milliCpus, { field: "milli_cpus", min: 1, max });
}

function parsePorts(ports: Record<number, number>, reserved: ReadonlySet<number>): PortMapping[] {
  const mappings = Object.entries(ports).map(([host, containerPort]) => ({
    hostPort: Number(host),
    containerPort,
  }));
  if (mappings.length > limits.MAX_PORTS) {
    throw invalid("ports", String(mappings.length), `at most ${limits.MAX_PORTS} ports`);
  }
  for (const { hostPort, containerPort } of mappings) {
    inRange(hostPort, { field: "ports", min: 1, max: 65_535, what: "host port" });
    inRange(containerPort, { field: "ports", min: 1, max: 65_535, what: "container port" });
    if (reserved.has(hostPort)) {
      throw invalid("ports", String(hostPort), "the agent itself listens on this host port");
    }
  }
  return mappings.sort((a, b) => a.hostPort - b.hostPort);
}

function parseName(text: string): string | undefined {
  if (text === "") return undefined;
  if (!NAME.test(text)) {
    throw invalid("name", text, "a name is 1 to 63 of a-z, 0-9 and -, with no - at either end");
  }
  if (ID.test(text)) throw invalid("name", text, "12 hex digits would be taken for an id");
  return text;
}

function parseRuntime(selection: RuntimeSelection | undefined): WorkloadSpec["runtime"] {
  if (selection === undefined) return { name: "runc", options: {} };
  const name = selection.name || "runc";
  if (!RUNTIME_NAME.test(name) || name.includes("..")) {
    throw invalid("runtime", name, "a runtime name is 1 to 128 of letters, digits, ., _, / and -");
  }
  const options = Object.entries(selection.options);
  if (options.length > limits.MAX_RUNTIME_OPTIONS) {
    throw invalid("runtime.options", String(options.length), `at most ${limits.MAX_RUNTIME_OPTIONS} options`);
  }
  for (const [key, value] of options) {
    const isTooLong = Math.max(key.length, value.length) > limits.MAX_RUNTIME_OPTION_LENGTH;
    if (isTooLong || key === "" || `${key}${value}`.includes("\0")) {
      throw invalid("runtime.options", key, `1 to ${limits.MAX_RUNTIME_OPTION_LENGTH} characters, no NUL`);
    }
  }
  return {
    name,
    options: { ...selection.options },
    ...(selection.microVm && { microVm: parseMicroVm(selection.microVm) }),
  };
}

function parseMicroVm(spec: MicroVMSpec): NonNullable<WorkloadSpec["runtime"]["microVm"]> {
  for (const field of ["provider", "hostNetDev", "kernel", "rootfsPath"] as const) {
    if (spec[field].length > limits.MAX_RUNTIME_OPTION_LENGTH || spec[field].includes("\0")) {
      throw invalid(`runtime.micro_vm.${field}`, spec[field], "too long, or it holds a NUL");
    }
  }
  return {
    provider: spec.provider,
    vcpu: inRange(spec.vcpu, { field: "runtime.micro_vm.vcpu", min: 0, max: limits.MAX_CORES }),
    memoryMiB: inRange(spec.memoryInMb, {
      field: "runtime.micro_vm.memory_in_mb",
      min: 0,
      max: limits.MAX_MEMORY_MIB,
    }),
    hostNetDev: spec.hostNetDev,
    kernel: spec.kernel,
    rootfsPath: spec.rootfsPath,
  };
}

interface Range {
  field: string;
  min: number;
  max: number;
  unit?: string;
  what?: string;
}

function inRange(value: number, range: Range): number {
  if (Number.isInteger(value) && value >= range.min && value <= range.max) return value;
  const unit = range.unit === undefined ? "" : ` ${range.unit}`;
  throw invalid(
    range.field,
    String(value),
    `${range.what ?? "it"} must be ${range.min} to ${range.max}${unit}`,
  );
}

function invalid(field: string, value: string, reason: string): RuntimeError {
  return new RuntimeError("invalid", `Cannot accept ${field} "${printable(value)}": ${reason}`);
}

/** Text from outside, made safe for one line of a message. */
function printable(text: string): string {
  return text.slice(0, 100).replace(/\p{Cc}/gu, "?");
}
