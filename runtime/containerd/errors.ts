import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { RuntimeError, type RuntimeErrorCode } from "../errors.ts";

/** The call an error came from. */
export interface FailedCall {
  /** "delete task "web"", see {@linkcode describeCall}. */
  what: string;
  socket: string;
  /** The caller's: tells a cancelled call from a broken stream. */
  signal?: AbortSignal;
}

/** A call in words, for error messages: "delete task "web"". */
export function describeCall(method: DescMethod, input: unknown): string {
  const verb = method.name === "Version"
    ? "ask"
    : method.name.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
  const noun = NOUNS[method.parent.typeName.split(".").at(-1)!] ?? method.parent.name;
  const subject = subjectOf(input);
  return `${verb} ${noun}${subject ? ` "${subject}"` : ""}`;
}

/** Translates what connect throws into a {@linkcode RuntimeError}; leaves RuntimeErrors alone. */
export function runtimeErrorFromConnect(error: unknown, call: FailedCall): RuntimeError {
  if (error instanceof RuntimeError) return error;
  const failure = ConnectError.from(error);
  if (call.signal?.aborted) {
    return new RuntimeError("canceled", `Cannot ${call.what}: canceled`, {
      cause: call.signal.reason ?? error,
    });
  }
  if (isConnectionLoss(failure)) {
    return new RuntimeError(
      "unavailable",
      `Cannot ${call.what}: containerd at ${call.socket} does not answer (${failure.rawMessage})`,
      { cause: error },
    );
  }
  if (failure.code === Code.DeadlineExceeded) {
    return new RuntimeError("timeout", `Cannot ${call.what}: containerd did not answer in time`, {
      cause: error,
    });
  }
  return new RuntimeError(codeOf(failure), `Cannot ${call.what}: ${failure.rawMessage}`, { cause: error });
}

/** Whether the error says that a thing is not there. */
export function isNotFound(error: unknown): boolean {
  return error instanceof RuntimeError && error.code === "not-found";
}

/** What a service's objects are called. */
const NOUNS: Record<string, string> = {
  Containers: "container",
  Content: "content",
  Diff: "layer",
  Events: "to events",
  Images: "image",
  Introspection: "of containerd",
  Leases: "lease",
  Namespaces: "namespace",
  Snapshots: "snapshot",
  Tasks: "task",
  Version: "containerd for its version",
};

/** Fields that name what a request is about, the most telling first; nested messages are looked into once. */
const SUBJECT_FIELDS = ["containerId", "id", "name", "key", "digest", "ref"];
const NESTED_FIELDS = ["container", "image", "info", "diff", "namespace", "lease"];

function subjectOf(input: unknown): string | undefined {
  if (typeof input !== "object" || input === null) return undefined;
  const fields = input as Record<string, unknown>;
  for (const name of SUBJECT_FIELDS) {
    const value = fields[name];
    if (typeof value === "string" && value !== "") return value;
  }
  for (const name of NESTED_FIELDS) {
    const subject = subjectOf(fields[name]);
    if (subject) return subject;
  }
  return undefined;
}

const CODES: Partial<Record<Code, RuntimeErrorCode>> = {
  [Code.InvalidArgument]: "invalid",
  [Code.NotFound]: "not-found",
  [Code.AlreadyExists]: "already-exists",
  [Code.ResourceExhausted]: "exhausted",
  [Code.FailedPrecondition]: "precondition",
  [Code.Unimplemented]: "precondition",
  [Code.Unavailable]: "unavailable",
};

function codeOf(failure: ConnectError): RuntimeErrorCode {
  // containerd hands the kernel's ENOSPC through as an unknown error.
  if (/no space left on device|disk quota exceeded/.test(failure.rawMessage)) return "exhausted";
  // The shim died under the call; containerd finds out in a moment.
  if (/ttrpc: (closed|client shutting down)/.test(failure.rawMessage)) return "unavailable";
  return CODES[failure.code] ?? "failed";
}

/**
 * Whether the connection failed rather than the call: connect reports ENOENT of the socket as Internal, a reset
 * stream as Canceled, Aborted or Internal. An error that containerd sent has no cause and never these messages.
 */
function isConnectionLoss(failure: ConnectError): boolean {
  if (failure.code === Code.Unavailable || failure.code === Code.Canceled) return true;
  if (/^http\/2 (stream|connection) closed/.test(failure.rawMessage)) return true;
  // An answer that was cut off; containerd never leaves the status out.
  if (failure.rawMessage === "protocol error: missing status") return true;
  for (let cause = failure.cause; cause instanceof Error; cause = cause.cause) {
    const code = (cause as { code?: unknown }).code;
    if (typeof code === "string" && /^(E[A-Z]+|ERR_(HTTP2|STREAM|SOCKET)_[A-Z_]+)$/.test(code)) return true;
  }
  return false;
}
