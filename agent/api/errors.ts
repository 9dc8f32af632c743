import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { ExecStartFailureSchema } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { RuntimeError, type RuntimeErrorCode } from "../../runtime/errors.ts";
import { ExecStartError } from "../../runtime/io/exec_error.ts";
import type { Log } from "../../runtime/log.ts";

const CODES: Readonly<Record<RuntimeErrorCode, Code>> = {
  invalid: Code.InvalidArgument,
  "not-found": Code.NotFound,
  "already-exists": Code.AlreadyExists,
  exhausted: Code.ResourceExhausted,
  precondition: Code.FailedPrecondition,
  denied: Code.PermissionDenied,
  // The registry wants credentials; the caller's own are fine, so this is not the API's "unauthenticated".
  unauthenticated: Code.FailedPrecondition,
  unavailable: Code.Unavailable,
  timeout: Code.DeadlineExceeded,
  canceled: Code.Canceled,
  failed: Code.Unknown,
};

/** An error as the API tells it. What is no operating error is a bug: it is logged, and the caller learns only that. */
export function toConnectError(error: unknown, log: Log): ConnectError {
  if (error instanceof ConnectError) return error;
  if (error instanceof ExecStartError) {
    return new ConnectError(error.message, CODES[error.code], undefined, [
      { desc: ExecStartFailureSchema, value: { exitCode: error.exitCode } },
    ]);
  }
  if (error instanceof RuntimeError) return new ConnectError(error.message, CODES[error.code]);
  if (error instanceof DOMException && error.name === "AbortError") {
    return new ConnectError("Cannot go on: canceled", Code.Canceled);
  }
  log.error("a call failed unexpectedly", { error: error instanceof Error ? error.stack : String(error) });
  return new ConnectError("Cannot answer: internal error, see the agent's log", Code.Internal);
}

/** The one place where errors become API errors, for answers and for streams of them. */
export function translateErrors(log: Log): Interceptor {
  return (next) => async (request) => {
    try {
      const response = await next(request);
      if (!response.stream) return response;
      return { ...response, message: translated(response.message, log) };
    } catch (error) {
      throw toConnectError(error, log);
    }
  };
}

async function* translated<T>(messages: AsyncIterable<T>, log: Log): AsyncGenerator<T> {
  try {
    yield* messages;
  } catch (error) {
    throw toConnectError(error, log);
  }
}
