/** Typed access to containerd: client, events, and a containerd of our own. */
export { anyJson, anyMessage, RUNTIME_PROCESS_TYPE_URL, RUNTIME_SPEC_TYPE_URL } from "./any.ts";
export * from "./client.ts";
export { isNotFound } from "./errors.ts";
export { type TaskEvent, taskEvents } from "./events.ts";
export { type ContainerdInfo, ContainerdSupervisor, type ContainerdSupervisorOptions } from "./supervisor.ts";
