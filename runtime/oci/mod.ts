/** From an image's configuration and a workload's wishes to an OCI runtime spec. */
export { HostSpecBuilder, type SpecInput } from "./builder.ts";
export { CONTAINER_CAPABILITIES } from "./capabilities.ts";
export { type CgroupFacts, type CgroupMode, readCgroupFacts } from "./cgroup.ts";
export { type ImageProcess, parseImageConfig } from "./image_config.ts";
export type { HostFiles } from "./mounts.ts";
export { needsUserFiles, readUserFiles, type SnapshotMount } from "./rootfs.ts";
export type { Architecture } from "./seccomp.ts";
export { buildSpec, type SpecFacts, type SpecRequest } from "./spec.ts";
export type { RuntimeSpec } from "./spec_types.ts";
export { type ResolvedUser, resolveUser, type UserFiles } from "./user.ts";
export { Xattr } from "./xattr.ts";
