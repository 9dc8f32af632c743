/** From an image's configuration and a workload's wishes to an OCI runtime spec. */
export { CONTAINER_CAPABILITIES } from "./capabilities.ts";
export { type CgroupFacts, type CgroupMode, readCgroupFacts } from "./cgroup.ts";
export { writeHostFiles } from "./host_files.ts";
export { type ImageProcess, parseImageConfig } from "./image_config.ts";
export type { HostFiles } from "./mounts.ts";
export { needsUserFiles, readUserFiles, type SnapshotMount } from "./rootfs.ts";
export type { Architecture } from "./seccomp.ts";
export { DEFAULT_STOP_SIGNAL, parseSignal } from "./signals.ts";
export { buildSpec, type SpecFacts, type SpecRequest } from "./spec.ts";
export type { RuntimeSpec } from "./spec_types.ts";
export { type ResolvedUser, resolveUser, type UserFiles } from "./user.ts";
