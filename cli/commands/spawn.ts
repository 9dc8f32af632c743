import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  VmSpawnRequestSchema,
  VmSpawnResponse,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { apiError, connectApi } from "../api_client.ts";
import { CommandError, exitCode, UsageError } from "../exit.ts";
import { type HacFile, parseHac } from "../hac.ts";
import { untilInterrupted } from "../interrupt.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";
import { printable } from "../parse/values.ts";
import { readPolicy } from "../policy_file.ts";
import { ProgressView } from "../progress.ts";

/** The file that the original reads when nothing else names an image. */
const DEFAULT_HAC = "hac.toml";
/** The original's VM shim, and the providers it knows. */
const VM_SHIM = "hypercore.example";
const VM_PROVIDERS = ["firecracker", "cloudhypervisor"];

/** Options of `hypercore spawn`. */
export interface SpawnOptions {
  imageRef?: string;
  image?: string;
  /** Thousandths of a CPU. */
  cpu?: number;
  /** MiB. */
  mem?: number;
  ports?: ReadonlyMap<number, number>;
  env?: readonly string[];
  runtime?: string;
  runtimeOption?: readonly (readonly [string, string])[];
  provider?: string;
  name?: string;
  label?: readonly (readonly [string, string])[];
  policy?: string;
  hac?: string;
  node?: string;
  constraint?: readonly string[];
  spread?: string;
  requestId?: string;
  pidsLimit?: number;
  tty?: true;
  stdin?: true;
  dryRun?: true;
}

/** `hypercore spawn`: prints id and URL. */
export async function spawn(
  args: readonly string[],
  options: SpawnOptions & ClientOptions & { json?: true },
  io: Io,
): Promise<number> {
  const request = {
    ...spawnRequest(args, options, readHac(options, io)),
    ...await readPolicy(options.policy, io),
  };
  const api = connectApi(options, io);
  using interrupt = untilInterrupted(io);
  const view = new ProgressView(io);
  let result: VmSpawnResponse | undefined;
  try {
    for await (const { event } of api.workloads.spawn(request, { signal: interrupt.signal, timeoutMs: 0 })) {
      if (event.case === "pull") await view.update(event.value);
      if (event.case === "step") await view.step(event.value);
      if (event.case === "result") result = event.value;
    }
  } catch (error) {
    const action = `Cannot spawn "${request.imageRef}"`;
    throw interrupt.error(action, () => apiError(action, api, error));
  } finally {
    await view.clear();
  }
  if (result === undefined) {
    throw new CommandError(`Cannot spawn "${request.imageRef}": the agent's answer has no id`);
  }
  const { id, url, node } = result;
  await io.out(options.json ? `${JSON.stringify({ id, url, node })}\n` : `${id}\n${url && `${url}\n`}`);
  return exitCode.ok;
}

/** The request that flags and file make; flags win. Throws {@linkcode UsageError}. */
export function spawnRequest(
  args: readonly string[],
  options: SpawnOptions,
  hac: HacFile,
): MessageInitShape<typeof VmSpawnRequestSchema> & { imageRef: string } {
  if (options.image !== undefined && options.imageRef !== undefined && options.image !== options.imageRef) {
    throw new UsageError("--image and --image-ref name two images");
  }
  const imageRef = options.imageRef ?? options.image ?? hac.ref;
  if (imageRef === undefined) {
    throw new UsageError("which image? Give --image-ref, or a hac.toml with hardware.ref");
  }
  const milliCpus = options.cpu ?? (hac.cores === undefined ? undefined : hac.cores * 1000);
  return {
    imageRef,
    cores: milliCpus === undefined ? 0 : Math.ceil(milliCpus / 1000),
    milliCpus: milliCpus === undefined || milliCpus % 1000 === 0 ? 0 : milliCpus,
    memory: options.mem ?? hac.memory ?? 0,
    ports: Object.fromEntries(options.ports ?? []),
    env: [...(options.env ?? [])],
    name: options.name ?? "",
    labels: labelsOf(options.label ?? []),
    runtime: runtimeOf(options, hac),
    node: options.node ?? "",
    constraints: [...(options.constraint ?? [])],
    spread: options.spread ?? "",
    requestId: options.requestId ?? "",
    args: [...args],
    tty: options.tty === true,
    stdin: options.stdin === true,
    dryRun: options.dryRun === true,
    pidsLimit: options.pidsLimit ?? 0,
  };
}

function labelsOf(pairs: readonly (readonly [string, string])[]): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const [key, value] of pairs) {
    if (Object.hasOwn(labels, key)) throw new UsageError(`--label: "${printable(key)}" is given twice`);
    labels[key] = value;
  }
  return labels;
}

/** A guest kernel or drive in the file means a VM, by the original's shim, unless a flag says otherwise. */
function runtimeOf(options: SpawnOptions, hac: HacFile) {
  const chosen = Object.fromEntries(options.runtimeOption ?? []);
  if (options.provider !== undefined && options.runtime !== undefined) {
    throw new UsageError("--provider and --runtime exclude each other");
  }
  const needsVm = hac.kernel !== undefined || hac.drive !== undefined;
  const provider = options.provider ??
    (options.runtime === undefined && needsVm ? VM_PROVIDERS[0] : undefined);
  if (options.runtime === VM_SHIM || (provider !== undefined && VM_PROVIDERS.includes(provider))) {
    return { name: VM_SHIM, options: chosen, microVm: microVm(provider ?? VM_PROVIDERS[0], options, hac) };
  }
  if (provider !== undefined && provider !== "runc") {
    throw new UsageError(`--provider: "${provider}" is not one of runc, ${VM_PROVIDERS.join(", ")}`);
  }
  const name = options.runtime ?? provider;
  if (name === undefined && Object.keys(chosen).length === 0) return undefined;
  return { name: name ?? "runc", options: chosen };
}

function microVm(provider: string, options: SpawnOptions, hac: HacFile) {
  return {
    provider,
    vcpu: options.cpu === undefined ? hac.cores ?? 1 : Math.ceil(options.cpu / 1000),
    memoryInMb: options.mem ?? hac.memory ?? 512,
    hostNetDev: hac.interface ?? "",
    kernel: hac.kernel ?? "",
    rootfsPath: hac.drive ?? "",
  };
}

function readHac(options: SpawnOptions, io: Io): HacFile {
  const named = options.hac !== undefined;
  if (!named && (options.imageRef ?? options.image) !== undefined) return {};
  const path = options.hac ?? DEFAULT_HAC;
  let text: string;
  try {
    text = io.readTextFile(path);
  } catch (error) {
    if (!named && error instanceof Deno.errors.NotFound) return {};
    throw new UsageError(`Cannot read "${path}": ${(error as Error).message}`, { cause: error });
  }
  try {
    return parseHac(text);
  } catch (error) {
    throw new UsageError(`${path}: ${(error as Error).message.split("\n")[0]}`, { cause: error });
  }
}
