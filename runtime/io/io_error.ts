import { RuntimeError, type RuntimeErrorCode } from "../errors.ts";

/** An error of the file system as a RuntimeError: `Cannot <action>: <reason>`. RuntimeErrors stay what they are. */
export function errorFromIo(error: unknown, action: string): RuntimeError {
  if (error instanceof RuntimeError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new RuntimeError(codeOf(error), `Cannot ${action}: ${reason}`, { cause: error });
}

function codeOf(error: unknown): RuntimeErrorCode {
  if (error instanceof Deno.errors.NotFound) return "not-found";
  if (error instanceof Deno.errors.AlreadyExists) return "already-exists";
  if (error instanceof Deno.errors.PermissionDenied) return "precondition";
  const code = (error as { code?: unknown } | null)?.code;
  if (code === "ENOSPC" || code === "EDQUOT" || code === "EMFILE" || code === "ENFILE") return "exhausted";
  if (code === "EROFS") return "precondition";
  return "failed";
}
