import { RuntimeError } from "../errors.ts";

/** What `Tasks.Create` is told about a container's streams. */
export interface TaskStdio {
  /** Path of a FIFO, or empty. */
  stdin: string;
  stdout: string;
  stderr: string;
  terminal: boolean;
}

/**
 * Streams that go to a log by themselves, whatever becomes of the agent and of containerd. Without a terminal the
 * shim appends both streams to the file. For a terminal the shim of containerd 1.6 can only do FIFOs and programs:
 * there a shell beside the shim copies, and goes on when the disk was full.
 */
export function taskStdio(options: { logPath: string; stdinPath: string; tty: boolean }): TaskStdio {
  const { logPath, stdinPath, tty } = options;
  if (!logPath.startsWith("/")) {
    throw new RuntimeError("invalid", `Cannot log to "${logPath}": the path is not absolute`);
  }
  if (!tty) {
    const uri = `file://${logPath.split("/").map(encodeURIComponent).join("/")}`;
    return { stdin: stdinPath, stdout: uri, stderr: uri, terminal: false };
  }
  // Descriptor 5 tells the shim that the program is ready, and has to be closed before anything is forked;
  // 3 is the terminal's output, 4 the error output that a terminal does not have.
  const script = `exec 5>&- 4<&- 3<&3; until cat <&3; do sleep 1; done >>${shellWord(logPath)}`;
  // One key with one value: the shim turns it into two arguments, "-c" and the script.
  const uri = `binary:///bin/sh?-c=${encodeURIComponent(script)}`;
  return { stdin: stdinPath, stdout: uri, stderr: "", terminal: true };
}

/** Exactly this text for a POSIX shell. */
function shellWord(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
