/** What kind of failure a {@linkcode RuntimeError} is; the API edge maps it to a status code. */
export type RuntimeErrorCode =
  | "invalid" // the caller's input is wrong
  | "not-found"
  | "already-exists"
  | "exhausted" // a limit of the node or of the disk
  | "precondition" // the machine lacks something (a shim, /dev/kvm, a CNI plugin), or the state forbids it
  | "denied" // a policy forbids it to everybody
  | "unauthenticated" // the registry wants credentials, or other ones
  | "unavailable" // containerd or a registry cannot be reached now; trying again may help
  | "timeout"
  | "canceled"
  | "failed";

/** An operating error of the runtime. The message reads `Cannot <action> "<x>": <reason>`. */
export class RuntimeError extends Error {
  override readonly name = "RuntimeError";
  constructor(readonly code: RuntimeErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
  }
}
