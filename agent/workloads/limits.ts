/** Bounds of what one workload may ask for. Each has a test that hits it. */

/** CPUs when a request names none. */
export const DEFAULT_CORES = 1;
/** Largest CPU count of one workload. */
export const MAX_CORES = 4_096;
/** Memory when a request names none, MiB. */
export const DEFAULT_MEMORY_MIB = 512;
/** Least memory a container can start in, MiB. */
export const MIN_MEMORY_MIB = 4;
/** Largest memory of one workload, MiB (16 TiB). */
export const MAX_MEMORY_MIB = 16_777_216;
/** Processes when a request names no limit. */
export const DEFAULT_PIDS = 512;
/** Largest process limit (the kernel's own PID_MAX_LIMIT). */
export const MAX_PIDS = 4_194_304;
/** Ports one workload may expose. */
export const MAX_PORTS = 64;
/** Environment entries of one workload. */
export const MAX_ENV_ENTRIES = 1_024;
/** Bytes of one `KEY=value`. */
export const MAX_ENV_ENTRY_BYTES = 131_072;
/** Bytes of the whole environment. */
export const MAX_ENV_BYTES = 262_144;
/** Arguments of one workload, or of one exec. */
export const MAX_ARGS = 1_024;
/** Bytes of all arguments. */
export const MAX_ARGS_BYTES = 131_072;
/** Length of an image reference. */
export const MAX_IMAGE_REF_LENGTH = 512;
/** Options of a runtime selection. */
export const MAX_RUNTIME_OPTIONS = 32;
/** Length of a runtime option's key or value. */
export const MAX_RUNTIME_OPTION_LENGTH = 1_024;
/** Labels of one workload. */
export const MAX_LABELS = 64;
/** Length of a label's key. */
export const MAX_LABEL_KEY_LENGTH = 128;
/** Length of a label's value. */
export const MAX_LABEL_VALUE_LENGTH = 256;
/** Bytes of the policy that a spawn carries. */
export const MAX_SPAWN_POLICY_BYTES = 65_536;
/** Longest grace period of a stop, milliseconds. */
export const MAX_GRACE_MS = 600_000;
/** Grace period when a stop names none, milliseconds. */
export const DEFAULT_GRACE_MS = 5_000;
/** Workloads on one node. */
export const MAX_WORKLOADS = 4_096;
/** Distinct host ports open on one node. */
export const MAX_HOST_PORTS = 1_024;
/** Operations that may wait for one workload. */
export const MAX_QUEUED_PER_WORKLOAD = 64;
/** Starts (spawns and restarts) under way at once. */
export const MAX_CONCURRENT_STARTS = 16;
