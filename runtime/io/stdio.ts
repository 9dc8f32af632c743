import { RuntimeError } from "../errors.ts";

/** What `Tasks.Create` is told about a container's streams. */
export interface TaskStdio {
  /** Path of a FIFO, or empty. */
  stdin: string;
  stdout: string;
  stderr: string;
  terminal: boolean;
}

/** What is asked of a container's streams. */
export interface StdioOptions {
  tty: boolean;
  /** Keep stdin open for attach. */
  stdin: boolean;
  /**
   * Let the shim write the file itself, as it does whenever stdin is open: for shims that start no programs. Such a
   * shim stops to read a stream for good when the disk is full once, and then the container stands still. Of no
   * effect with a terminal.
   */
  plainFile?: boolean;
}

/**
 * Streams that go to a log by themselves, whatever becomes of the agent and of containerd: a shell beside the shim
 * copies them, appending, and goes on when the disk was full (what could not be written is lost, the container is
 * not). The shim of containerd 1.6 itself does not, and cannot write a terminal's output to a file at all; with stdin
 * and no terminal it is the only way.
 */
export function taskStdio(paths: { log: string; stdin: string }, options: StdioOptions): TaskStdio {
  if (!paths.log.startsWith("/")) {
    throw new RuntimeError("invalid", `Cannot log to "${paths.log}": the path is not absolute`);
  }
  const stdin = options.stdin ? paths.stdin : "";
  // Beside a program, containerd 1.6 connects no stdin but a terminal's.
  if ((options.plainFile || options.stdin) && !options.tty) {
    const uri = `file://${paths.log.split("/").map(encodeURIComponent).join("/")}`;
    return { stdin, stdout: uri, stderr: uri, terminal: false };
  }
  // One key with one value: the shim turns it into two arguments, "-c" and the script.
  const uri = `binary:///bin/sh?-c=${encodeURIComponent(copyScript(paths.log, options.tty))}`;
  return { stdin, stdout: uri, stderr: options.tty ? "" : uri, terminal: options.tty };
}

/**
 * Copies descriptors 3 (standard output, or the terminal) and 4 (error output) to the log until they end. Closing 5
 * tells the shim that the program is ready, and has to come before anything is forked.
 */
function copyScript(logPath: string, tty: boolean): string {
  const copy = "copy() { until cat; do sleep 0.2; done; }";
  const errorOutput = tty ? "" : "copy <&4 3<&- 4<&- & ";
  return `exec 5>&- >>${shellWord(logPath)}; ${copy}; ${errorOutput}copy <&3 3<&- 4<&-; wait`;
}

/** Exactly this text for a POSIX shell. */
function shellWord(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
