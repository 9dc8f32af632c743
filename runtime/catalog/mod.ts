/** A containerd runtime by name, and the options it is given; see `RuntimeSelection` in cluster.proto. */
export interface RuntimeSelection {
  /** "runc", "runsc", "kata", "firecracker", "cloud-hypervisor", "hypercore.example", or any containerd runtime name. */
  name: string;
  options: Readonly<Record<string, string>>;
  /** For the VM shim of the Go original only. */
  microVm?: MicroVmSpec;
}

/** What the Go original's VM shim is told. */
export interface MicroVmSpec {
  provider: string;
  vcpu: number;
  memoryMiB: number;
  hostNetDev: string;
  kernel: string;
  rootfsPath: string;
}

export { type ResolvedRuntime, RuntimeCatalog, type RuntimeCatalogOptions, searchPath } from "./catalog.ts";
