import { RuntimeError } from "../errors.ts";

/** Exit code of a command that is there but cannot be run; as the shell and Docker have it. */
export const EXIT_NOT_EXECUTABLE = 126;

/** Exit code of a command that is not there; as the shell and Docker have it. */
export const EXIT_NOT_FOUND = 127;

/** A command that could not be started in a container. Clients exit with {@linkcode exitCode}. */
export class ExecStartError extends RuntimeError {
  constructor(message: string, readonly exitCode: 126 | 127, options?: ErrorOptions) {
    super("precondition", message, options);
  }
}

/** What containerd said when an exec'd process would not start, as the error a user understands. */
export function execStartError(error: unknown, command: string, containerId: string): unknown {
  if (!(error instanceof RuntimeError) || error.code === "unavailable" || error.code === "canceled") {
    return error;
  }
  const reason = REASONS.find(({ pattern }) => pattern.test(error.message));
  if (!reason) return error;
  return new ExecStartError(`Cannot exec "${command}" in "${containerId}": ${reason.text}`, reason.exitCode, {
    cause: error,
  });
}

/** In the words of runc, crun and runsc; the first that fits counts. */
const REASONS: readonly { pattern: RegExp; text: string; exitCode: 126 | 127 }[] = [
  {
    pattern: /(chdir to cwd|mkdir|cwd).*(no such file|not a directory|permission denied)/s,
    text: "cannot enter the working directory",
    exitCode: EXIT_NOT_EXECUTABLE,
  },
  {
    pattern:
      /executable file .*not found|not found in \$PATH|error finding executable|no such file or directory/,
    text: "executable file not found",
    exitCode: EXIT_NOT_FOUND,
  },
  { pattern: /permission denied/, text: "permission denied", exitCode: EXIT_NOT_EXECUTABLE },
  { pattern: /is a directory/, text: "it is a directory", exitCode: EXIT_NOT_EXECUTABLE },
  { pattern: /exec format error/, text: "exec format error", exitCode: EXIT_NOT_EXECUTABLE },
];
