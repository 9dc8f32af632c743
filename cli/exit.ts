/** Exit codes of the command line; exec and attach add the process's own. Interrupted is as a program that SIGINT ended. */
export const exitCode = { ok: 0, failed: 1, usage: 2, clientError: 125, interrupted: 130 } as const;

/** Ends a command with one line on stderr. Bad input is {@linkcode UsageError}. */
export class CommandError extends Error {
  override readonly name: string = "CommandError";
  constructor(message: string, readonly code: number = exitCode.failed, options?: ErrorOptions) {
    super(message, options);
  }
}

/** The caller's input is wrong; names flag and value. Nothing has been changed. */
export class UsageError extends CommandError {
  override readonly name = "UsageError";
  constructor(message: string, options?: ErrorOptions) {
    super(message, exitCode.usage, options);
  }
}
