import type { Any } from "@bufbuild/protobuf/wkt";
import { create } from "@bufbuild/protobuf";
import { OptionsSchema as RuncOptionsSchema } from "../../proto/gen/containerd/runc/v1/options_pb.ts";
import { OptionsSchema as FileOptionsSchema } from "../../proto/gen/containerd/runtimeoptions/v1/options_pb.ts";
import { anyJson, anyMessage } from "../containerd/any.ts";
import { RuntimeError } from "../errors.ts";
import { type RunCommand, runCommand } from "../network/command.ts";
import { parsePlatforms, planGvisor } from "./gvisor.ts";
import type { RuntimeSelection } from "./mod.ts";
import {
  DEFAULT_RUNTIME,
  GVISOR_RUNTIME,
  planRuntime,
  type Requirement,
  type ShimOptions,
  shimProgram,
} from "./plans.ts";

/** A runtime whose needs are met on this machine. */
export interface ResolvedRuntime {
  /** containerd's name. */
  name: string;
  options?: Any;
  /** The network comes in by a tap device in the netns. */
  isVm: boolean;
}

/** What a {@linkcode RuntimeCatalog} is made of. */
export interface RuntimeCatalogOptions {
  /** Wrappers and configuration files for shims are written here; programs in it must be allowed to run. */
  dir: string;
  /** Where runc and runsc keep their state; the shim appends the containerd namespace. Theirs by default. */
  stateRoot?: string;
  /** Folders programs are looked for in; containerd's PATH should have them too. */
  searchPath: readonly string[];
  run?: RunCommand;
}

const RUNC_SHIM = "io.containerd.runc.v2";
const GVISOR_SHIM = "io.containerd.runsc.v1";
const PROGRAM_TIMEOUT_MS = 10_000;

/** The runtimes that stand for themselves, each with the program that must run. */
const KNOWN_RUNTIMES: readonly { name: string; program?: string }[] = [
  { name: DEFAULT_RUNTIME, program: "runc" },
  { name: GVISOR_RUNTIME, program: "runsc" },
  { name: "kata" },
  { name: "cloud-hypervisor" },
  { name: "firecracker", program: "firecracker" },
];

/** The runtimes by name: checks what each needs before anything is created, and writes what its shim reads. */
export class RuntimeCatalog {
  readonly #options: RuntimeCatalogOptions;
  readonly #run: RunCommand;

  constructor(options: RuntimeCatalogOptions) {
    this.#options = options;
    this.#run = options.run ?? runCommand;
  }

  /** Throws `invalid` for what cannot be, `precondition` that names what the runtime lacks here. */
  async resolve(
    selection: RuntimeSelection,
    options: { signal?: AbortSignal } = {},
  ): Promise<ResolvedRuntime> {
    if (selection.name === GVISOR_RUNTIME) return await this.#gvisor(selection, options.signal);
    const plan = planRuntime(selection);
    for (const requirement of plan.requires) await this.#require(selection.name, requirement);
    return { name: plan.name, isVm: plan.isVm, options: this.#any(plan.options) };
  }

  /** Names of the known runtimes whose needs are met here, and whose programs answer when asked for their version. */
  async working(options: { signal?: AbortSignal } = {}): Promise<string[]> {
    const working = await Promise.all(KNOWN_RUNTIMES.map(async ({ name, program }) => {
      try {
        await this.resolve({ name, options: {} }, options);
        if (program !== undefined) await this.#answers(await this.#program(name, program), options.signal);
        return [name];
      } catch (error) {
        if (error instanceof RuntimeError && error.code !== "canceled") return [];
        throw error;
      }
    }));
    return working.flat();
  }

  async #answers(program: string, signal?: AbortSignal): Promise<void> {
    const { code } = await this.#run({ program, args: ["--version"], timeoutMs: PROGRAM_TIMEOUT_MS, signal });
    if (code !== 0) {
      throw new RuntimeError("precondition", `Cannot use "${program}": it fails when asked for its version`);
    }
  }

  async #gvisor(selection: RuntimeSelection, signal?: AbortSignal): Promise<ResolvedRuntime> {
    const { name } = selection;
    const runsc = await this.#program(name, "runsc");
    const hasShim = await this.#find(shimProgram(GVISOR_SHIM)) !== undefined;
    const flags = await this.#run({ program: runsc, args: ["flags"], timeoutMs: PROGRAM_TIMEOUT_MS, signal });
    const plan = planGvisor(selection, { hasShim, platforms: parsePlatforms(flags.stdout + flags.stderr) });
    if (plan.platform === "kvm") await this.#require(name, { kind: "kvm" });
    const stem = `runsc-${plan.platform}-${plan.network}`;
    if (plan.via === "own-shim") {
      const path = `${this.#options.dir}/${stem}.toml`;
      await this.#write(
        path,
        `${
          this.#options.stateRoot ? `root = ${JSON.stringify(this.#options.stateRoot)}\n` : ""
        }[runsc_config]\n` +
          `platform = "${plan.platform}"\nnetwork = "${plan.network}"\n`,
      );
      const typeUrl = "io.containerd.runsc.v1.options";
      return { name: GVISOR_SHIM, isVm: false, options: this.#any({ kind: "config-file", typeUrl, path }) };
    }
    await this.#program(name, shimProgram(RUNC_SHIM));
    const wrapper = `${this.#options.dir}/${stem}`;
    await this.#write(
      wrapper,
      `#!/bin/sh\nexec ${shellWord(runsc)} --platform=${plan.platform} --network=${plan.network} "$@"\n`,
    );
    return { name: RUNC_SHIM, isVm: false, options: this.#runcOptions(wrapper) };
  }

  #any(options: ShimOptions): Any | undefined {
    switch (options.kind) {
      case "none":
        return undefined;
      case "runc":
        return this.#runcOptions();
      case "config-file":
        return anyMessage(
          FileOptionsSchema,
          create(FileOptionsSchema, { typeUrl: options.typeUrl, configPath: options.path }),
        );
      case "json":
        return anyJson(options.typeUrl, options.value);
    }
  }

  #runcOptions(binaryName = ""): Any {
    return anyMessage(
      RuncOptionsSchema,
      create(RuncOptionsSchema, { binaryName, root: this.#options.stateRoot ?? "" }),
    );
  }

  async #require(runtime: string, requirement: Requirement): Promise<void> {
    switch (requirement.kind) {
      case "program":
        await this.#program(runtime, requirement.name);
        return;
      case "file":
        if (await isFile(requirement.path)) return;
        throw lacking(runtime, `its ${requirement.what} "${requirement.path}" is not there`);
      case "kvm": {
        const reason = await kvmProblem();
        if (reason !== undefined) throw lacking(runtime, reason);
      }
    }
  }

  async #program(runtime: string, name: string): Promise<string> {
    const path = await this.#find(name);
    if (path !== undefined) return path;
    throw lacking(runtime, `program "${name}" is not in ${this.#options.searchPath.join(", ")}`);
  }

  async #find(name: string): Promise<string | undefined> {
    for (const dir of this.#options.searchPath) {
      if (await isFile(`${dir}/${name}`, { isExecutable: true })) return `${dir}/${name}`;
    }
    return undefined;
  }

  /** Replaces the file at once; several spawns may do so at the same time. */
  async #write(path: string, text: string): Promise<void> {
    await Deno.mkdir(this.#options.dir, { recursive: true, mode: 0o755 });
    const temporary = `${path}.${crypto.randomUUID()}`;
    await Deno.writeTextFile(temporary, text, { mode: 0o755 });
    await Deno.rename(temporary, path);
  }
}

/** The folders of a PATH and those where root's programs are besides. */
export function searchPath(path = ""): string[] {
  const usual = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
  return [...new Set([...path.split(":").filter((dir) => dir.startsWith("/")), ...usual])];
}

/** Whether the CPU of a `/proc/cpuinfo` can run guests; arm64 names no flag for it. */
export function hasVirtualization(cpuinfo: string): boolean {
  const flags = /^flags\s*:(.*)$/m.exec(cpuinfo);
  return flags === null || /\b(vmx|svm)\b/.test(flags[1]);
}

/** The device alone proves nothing: a kernel without support for this CPU has it too. */
async function kvmProblem(): Promise<string | undefined> {
  try {
    (await Deno.open("/dev/kvm", { read: true, write: true })).close();
  } catch (error) {
    return `/dev/kvm cannot be used: ${error instanceof Error ? error.message : error}`;
  }
  if (hasVirtualization(await Deno.readTextFile("/proc/cpuinfo"))) return undefined;
  return "/dev/kvm is there, but the CPU has no hardware virtualisation (vmx or svm)";
}

async function isFile(path: string, options: { isExecutable?: boolean } = {}): Promise<boolean> {
  try {
    const info = await Deno.stat(path);
    return info.isFile && (!options.isExecutable || ((info.mode ?? 0) & 0o111) !== 0);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

function lacking(runtime: string, reason: string): RuntimeError {
  return new RuntimeError("precondition", `Cannot use runtime "${runtime}": ${reason}`);
}

function shellWord(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
