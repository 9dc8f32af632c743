/**
 * Logs, exec and attach: everything between a container's streams and the outside.
 *
 * @module
 */
export { ContainerIo, type ContainerIoOptions, MAX_EXECS } from "./container_io.ts";
export { resolveContainerUser } from "./container_user.ts";
export { ExecStartError, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND } from "./exec_error.ts";
export type { LogLimits } from "./log_window.ts";
export type { ContainerUser } from "./process_spec.ts";
export type { RotationStats } from "./rotator.ts";
export type { StdioOptions, TaskStdio } from "./stdio.ts";
