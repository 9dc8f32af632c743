import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { ExecStartFailureSchema } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { RuntimeError, type RuntimeErrorCode } from "../../runtime/errors.ts";
import { ExecStartError } from "../../runtime/io/exec_error.ts";
import { HandshakeError } from "./handshake/refusal.ts";

/** The call an error came from. */
export interface FailedCall {
  /** What the message calls the node. */
  node: string;
  method: DescMethod;
  /** The caller's: tells a cancelled call from a broken one. */
  signal?: AbortSignal;
}

/** A node that cannot be asked now. */
export function unreachable(node: string, reason: string, options?: ErrorOptions): RuntimeError {
  return new RuntimeError("unavailable", `Cannot reach node "${node}": ${reason}`, options);
}

/**
 * What a call to another node threw, as the error that the same thing would have thrown here; where the node could not be
 * reached or went away, `unavailable` with `Cannot reach node "x": reason`.
 */
export function errorOfCall(error: unknown, { node, method, signal }: FailedCall): RuntimeError {
  if (error instanceof RuntimeError) return error;
  const failure = ConnectError.from(error);
  for (let cause: unknown = failure; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof RuntimeError) return cause;
  }
  const verb = method.name.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
  if (signal?.aborted) {
    const cause = signal.reason ?? error;
    return new RuntimeError("canceled", `Cannot ${verb} on node "${node}": canceled`, { cause });
  }
  // A message of the other agent's own says what could not be done.
  const isTheirs = failure.rawMessage.startsWith("Cannot ");
  if (isConnectionLoss(failure) || failure.code === Code.Unavailable && !isTheirs) {
    return unreachable(node, reasonOf(failure), { cause: error });
  }
  if (failure.code === Code.DeadlineExceeded && !isTheirs) {
    const message = `Cannot ${verb} on node "${node}": it did not answer in time`;
    return new RuntimeError("timeout", message, { cause: error });
  }
  const message = isTheirs ? failure.rawMessage : `Cannot ${verb} on node "${node}": ${failure.rawMessage}`;
  const [start] = failure.findDetails(ExecStartFailureSchema);
  if (start?.exitCode === 126 || start?.exitCode === 127) {
    return new ExecStartError(message, start.exitCode, { cause: error });
  }
  return new RuntimeError(CODES[failure.code] ?? "failed", message, { cause: error });
}

/** Why a connection could not be made, in words. */
export function reasonOf(error: unknown): string {
  if (error instanceof HandshakeError) return error.message;
  if (!(error instanceof Error)) return String(error);
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    const reason = REASONS[(cause as { code?: unknown }).code as string];
    if (reason !== undefined) return reason;
  }
  if (error instanceof ConnectError) {
    if (error.rawMessage === "HTTP 503") return "it is shutting down";
    if (isCutOff(error)) return "the connection was closed";
    return error.code === Code.Canceled ? "it stopped the call" : error.rawMessage;
  }
  return error.message;
}

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connection refused",
  ECONNRESET: "the connection was reset",
  EPIPE: "the connection was closed",
  EHOSTUNREACH: "no route to host",
  ENETUNREACH: "network unreachable",
  ETIMEDOUT: "connection timed out",
  ERR_HTTP2_SESSION_ERROR: "the connection broke",
  ERR_HTTP2_STREAM_CANCEL: "the connection was closed",
  ERR_HTTP2_GOAWAY_SESSION: "it is shutting down",
  ERR_HTTP2_INVALID_SESSION: "the connection was closed",
  ERR_STREAM_PREMATURE_CLOSE: "the connection was closed",
};

const CODES: Partial<Record<Code, RuntimeErrorCode>> = {
  [Code.InvalidArgument]: "invalid",
  [Code.NotFound]: "not-found",
  [Code.AlreadyExists]: "already-exists",
  [Code.ResourceExhausted]: "exhausted",
  [Code.FailedPrecondition]: "precondition",
  [Code.PermissionDenied]: "denied",
  [Code.Unauthenticated]: "unauthenticated",
  [Code.Unavailable]: "unavailable",
  [Code.DeadlineExceeded]: "timeout",
  // An older agent than this one.
  [Code.Unimplemented]: "precondition",
};

/** Whether an answer ended in its middle; how it ended is not told when the other end just closes. */
function isCutOff({ code, rawMessage }: ConnectError): boolean {
  return /^protocol error: (missing status|incomplete envelope|promised \d+ bytes)/.test(rawMessage) ||
    code === Code.Unknown && rawMessage.startsWith("protocol error: missing output message");
}

/** Whether the connection failed rather than the call. Nobody here has canceled it, so a cancel is the other end's. */
function isConnectionLoss(failure: ConnectError): boolean {
  if (failure.code === Code.Canceled || isCutOff(failure)) return true;
  if (/^http\/2 (stream|connection) closed/i.test(failure.rawMessage)) return true;
  for (let cause: unknown = failure.cause; cause instanceof Error; cause = cause.cause) {
    const { code } = cause as { code?: unknown };
    if (cause instanceof HandshakeError) return true;
    if (typeof code === "string" && /^(E[A-Z]+|ERR_(HTTP2|STREAM|SOCKET)_[A-Z_]+)$/.test(code)) return true;
  }
  return false;
}
