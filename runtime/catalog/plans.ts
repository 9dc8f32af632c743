import { RuntimeError } from "../errors.ts";
import type { MicroVmSpec, RuntimeSelection } from "./mod.ts";

/** Something the machine must have before a runtime can be used. */
export type Requirement =
  /** A program on PATH. */
  | { kind: "program"; name: string }
  /** An existing regular file. */
  | { kind: "file"; path: string; what: string }
  /** Hardware virtualisation. */
  | { kind: "kvm" };

/** What containerd hands to the shim. */
export type ShimOptions =
  | { kind: "none" }
  /** `containerd.runc.v1.Options`. */
  | { kind: "runc" }
  /** `runtimeoptions.v1.Options`: a file the shim reads. */
  | { kind: "config-file"; typeUrl: string; path: string }
  | { kind: "json"; typeUrl: string; value: unknown };

/** How to run a container with a runtime. */
export interface RuntimePlan {
  /** containerd's name; the shim's program name follows from it. */
  name: string;
  requires: readonly Requirement[];
  options: ShimOptions;
  /** The network comes in by a tap device in the netns (tc-redirect-tap). Kata taps the veth by itself. */
  isVm: boolean;
}

/** Folders a Kata configuration may be in: an option never makes root read any other file. */
export const KATA_CONFIG_DIRS: readonly string[] = [
  "/etc/kata-containers",
  "/opt/kata/share/defaults/kata-containers",
  "/usr/share/defaults/kata-containers",
  "/usr/local/share/defaults/kata-containers",
];

/** Bounds the Go original puts on its VMs. */
export const MAX_MICRO_VM_VCPUS = 64;
export const MIN_MICRO_VM_MIB = 1024;
export const MAX_MICRO_VM_MIB = 32_768;

/** Name of the runtime that runs what names none. */
export const DEFAULT_RUNTIME = "runc";

/** Name of gVisor; its plan depends on the build that is installed. */
export const GVISOR_RUNTIME = "runsc";

/** The plan of every runtime but gVisor. Throws `invalid` for names, options and VM specs that cannot be. */
export function planRuntime(selection: RuntimeSelection): RuntimePlan {
  const name = selection.name || DEFAULT_RUNTIME;
  if (selection.microVm && name !== "hypercore.example") {
    throw invalidRuntime(name, "a micro VM spec is for hypercore.example only");
  }
  switch (name) {
    case "runc":
      checkOptions(selection, []);
      return shim("io.containerd.runc.v2", { options: { kind: "runc" }, programs: ["runc"] });
    case "kata":
      return kata(selection, undefined);
    case "cloud-hypervisor":
      return kata(selection, "configuration-clh.toml");
    case "firecracker":
      checkOptions(selection, []);
      return shim("aws.firecracker", { isVm: true, needsKvm: true, programs: ["firecracker"] });
    case "hypercore.example":
      return microVm(selection);
    default:
      return other(selection);
  }
}

/** Program containerd starts for a runtime name: the last two parts of it. */
export function shimProgram(name: string): string {
  return `containerd-shim-${name.split(".").slice(-2).join("-")}`;
}

/** Refuses options a runtime does not know. */
export function checkOptions(selection: RuntimeSelection, known: readonly string[]): void {
  const unknown = Object.keys(selection.options).find((key) => !known.includes(key));
  if (unknown === undefined) return;
  const hint = known.length > 0 ? `it knows ${known.join(", ")}` : "it has none";
  throw invalidRuntime(selection.name, `unknown option "${unknown.slice(0, 64)}"; ${hint}`);
}

/** An error about what a caller has selected. */
export function invalidRuntime(name: string, reason: string): RuntimeError {
  return new RuntimeError("invalid", `Cannot use runtime "${name.slice(0, 64)}": ${reason}`);
}

function shim(
  name: string,
  parts: {
    options?: ShimOptions;
    programs?: readonly string[];
    files?: readonly { path: string; what: string }[];
    isVm?: boolean;
    needsKvm?: boolean;
  },
): RuntimePlan {
  return {
    name,
    isVm: parts.isVm ?? false,
    options: parts.options ?? { kind: "none" },
    requires: [
      { kind: "program", name: shimProgram(name) },
      ...(parts.programs ?? []).map((name) => ({ kind: "program" as const, name })),
      ...(parts.files ?? []).map((file) => ({ kind: "file" as const, ...file })),
      ...parts.needsKvm ? [{ kind: "kvm" as const }] : [],
    ],
  };
}

function kata(selection: RuntimeSelection, defaultConfig: string | undefined): RuntimePlan {
  checkOptions(selection, ["config"]);
  const config = selection.options.config ?? defaultConfig;
  const name = "io.containerd.kata.v2";
  if (config === undefined) return shim(name, { needsKvm: true });
  const path = config.startsWith("/") ? config : `${KATA_CONFIG_DIRS[1]}/${config}`;
  const file = path.split("/").pop() as string;
  if (!KATA_CONFIG_DIRS.some((dir) => path === `${dir}/${file}`) || !/^[\w.-]+\.toml$/.test(file)) {
    throw invalidRuntime(
      selection.name,
      `config "${config.slice(0, 128)}" is not a .toml in ${KATA_CONFIG_DIRS.join(", ")}`,
    );
  }
  return shim(name, {
    needsKvm: true,
    files: [{ path, what: "configuration" }],
    options: { kind: "config-file", typeUrl: "io.containerd.kata.v2.options", path },
  });
}

/** The hypervisors of the Go original's shim, where it expects them. */
const PROVIDERS: Readonly<Record<string, string>> = {
  firecracker: "/usr/bin/firecracker",
  cloudhypervisor: "/usr/bin/cloud-hypervisor",
};

function microVm(selection: RuntimeSelection): RuntimePlan {
  checkOptions(selection, []);
  const spec = selection.microVm;
  if (!spec) throw invalidRuntime(selection.name, "it needs a micro VM spec");
  checkMicroVm(selection.name, spec);
  return shim("hypercore.example", {
    isVm: true,
    needsKvm: true,
    files: [
      { path: PROVIDERS[spec.provider], what: "hypervisor" },
      ...spec.kernel ? [{ path: spec.kernel, what: "kernel" }] : [],
      ...spec.rootfsPath ? [{ path: spec.rootfsPath, what: "root file system" }] : [],
    ],
    // The original's shim takes JSON and looks at the value only; `memory_inmb` is its spelling.
    options: {
      kind: "json",
      typeUrl: "models.MicroVMSpec",
      value: {
        provider: spec.provider,
        kernel: spec.kernel,
        vcpu: spec.vcpu,
        memory_inmb: spec.memoryMiB,
        host_net_dev: spec.hostNetDev,
        rootfs_path: spec.rootfsPath,
      },
    },
  });
}

function checkMicroVm(name: string, spec: MicroVmSpec): void {
  const refuse = (reason: string) => {
    throw invalidRuntime(name, reason);
  };
  if (!Object.hasOwn(PROVIDERS, spec.provider)) {
    refuse(`provider "${spec.provider.slice(0, 64)}" is not one of ${Object.keys(PROVIDERS).join(", ")}`);
  }
  if (!Number.isInteger(spec.vcpu) || spec.vcpu < 1 || spec.vcpu > MAX_MICRO_VM_VCPUS) {
    refuse(`${spec.vcpu} vCPUs are not between 1 and ${MAX_MICRO_VM_VCPUS}`);
  }
  if (
    !Number.isInteger(spec.memoryMiB) || spec.memoryMiB < MIN_MICRO_VM_MIB ||
    spec.memoryMiB > MAX_MICRO_VM_MIB
  ) {
    refuse(`${spec.memoryMiB} MiB are not between ${MIN_MICRO_VM_MIB} and ${MAX_MICRO_VM_MIB}`);
  }
  for (const path of [spec.kernel, spec.rootfsPath]) {
    if (path && (!path.startsWith("/") || path.includes("\0"))) {
      refuse(`"${path.slice(0, 128)}" is not an absolute path`);
    }
  }
  if (!/^[\w.-]{0,15}$/.test(spec.hostNetDev)) {
    refuse(`"${spec.hostNetDev.slice(0, 64)}" is not a network interface`);
  }
}

function other(selection: RuntimeSelection): RuntimePlan {
  const { name, options } = selection;
  // containerd takes a path as well; a caller must not choose the program that runs as root.
  if (name.length > 128 || !/^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+$/.test(name)) {
    throw invalidRuntime(
      name,
      "it is neither a known runtime nor a containerd runtime name such as io.containerd.runc.v2",
    );
  }
  checkOptions(selection, ["type_url", "config_path"]);
  const { type_url: typeUrl, config_path: path } = options;
  if (typeUrl === undefined && path === undefined) {
    return shim(
      name,
      name === "io.containerd.runc.v2" ? { options: { kind: "runc" }, programs: ["runc"] } : {},
    );
  }
  if (!typeUrl || !path?.startsWith("/") || path.includes("\0")) {
    throw invalidRuntime(name, "type_url and config_path (an absolute path) go together");
  }
  return shim(name, {
    files: [{ path, what: "configuration" }],
    options: { kind: "config-file", typeUrl, path },
  });
}
