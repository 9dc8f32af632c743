import { CommanderError, type CommandUnknownOpts } from "@commander-js/extra-typings";
import { CommandError, exitCode } from "./exit.ts";
import type { Io } from "./io.ts";
import { buildProgram } from "./program.ts";

/** Runs one command line and returns the program's exit code. Never throws for what a user can cause. */
export async function run(args: readonly string[], io: Io): Promise<number> {
  let code: number = exitCode.failed;
  const pending: Promise<void>[] = [];
  const program = buildProgram(io, (finished) => code = finished);
  configure(program as unknown as CommandUnknownOpts, pending, io);
  try {
    await program.parseAsync([...args], { from: "user" });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) {
      await Promise.all(pending);
      return error.exitCode === 0 ? exitCode.ok : usageCode(args);
    }
    if (error instanceof CommandError) {
      await io.err(`hypercore: ${error.message}\n`);
      return error.code === exitCode.usage ? usageCode(args) : error.code;
    }
    throw error;
  }
}

/** exec reports its own failures as 125, so that they differ from those of the command it runs. */
function usageCode(args: readonly string[]): number {
  return args[0] === "exec" ? exitCode.clientError : exitCode.usage;
}

function configure(command: CommandUnknownOpts, pending: Promise<void>[], io: Io): void {
  command.exitOverride().configureOutput({
    writeOut: (text) => void pending.push(io.out(text)),
    writeErr: (text) => void pending.push(io.err(text)),
    outputError: (text, write) => write(text.replace(/^error: /, "hypercore: ")),
  });
  for (const child of command.commands) configure(child, pending, io);
}
