import type { ContainerdClient } from "../containerd/client.ts";
import type { ExecOptions } from "../engine.ts";
import { RuntimeError } from "../errors.ts";
import type { Log } from "../log.ts";
import { execStartError } from "./exec_error.ts";
import { ExecSession } from "./exec_session.ts";
import { FifoReader, FifoWriter } from "./fifo.ts";
import { errorFromIo } from "./io_error.ts";
import type { KeyedLock } from "./keyed_lock.ts";
import type { Libc } from "./libc.ts";
import { type ContainerUser, execProcessSpec, PROCESS_TYPE_URL, type ProcessSpec } from "./process_spec.ts";
import { TaskProcess } from "./task_process.ts";

/** How long containerd is asked to forget a process that would not start, in milliseconds. */
const UNDO_TIMEOUT_MS = 10_000;

const SIGKILL = 9;

/** What exec needs of its surroundings. */
export interface ExecContext {
  client: ContainerdClient;
  libc: Libc;
  log: Log;
  /** A directory of this process alone; it must not exist yet. Its last part is the process's name in containerd. */
  directory: string;
  execId: string;
  /**
   * One start at a time in a container: the shim does no two at once anyway, and that of containerd 1.6 stands still
   * for some 15 s when processes end while several wait to start.
   */
  starts: KeyedLock;
  /** Numbers of a user named in a container. */
  resolveUser: (containerId: string, user: string, signal?: AbortSignal) => Promise<ContainerUser>;
}

/**
 * Starts a process in a running container: FIFOs, exec record, start, in this order; a failure undoes the earlier
 * steps. Throws RuntimeError: `not-found` without such a container or task, ExecStartError when the command cannot
 * be run.
 */
export async function startExec(
  id: string,
  options: ExecOptions,
  context: ExecContext,
): Promise<ExecSession> {
  const { client, libc, execId, directory } = context;
  const tty = options.tty ?? false;
  const base = await processOf(client, id, options.signal);
  const user = options.user ? await context.resolveUser(id, options.user, options.signal) : undefined;
  const spec = execProcessSpec(base, options, user);
  options.signal?.throwIfAborted();

  await using undo = new AsyncDisposableStack();
  undo.defer(() => removeDirectory(directory, context.log));
  await makeDirectory(directory);
  const fifo = (name: string) => {
    const path = `${directory}/${name}`;
    libc.makeFifo(path);
    return path;
  };
  const paths = {
    stdin: options.stdin ? fifo("stdin") : "",
    stdout: fifo("stdout"),
    stderr: tty ? "" : fifo("stderr"),
  };
  // Readers first: the shim waits for them.
  const stdout = undo.use(new FifoReader(libc, paths.stdout));
  const stderr = paths.stderr ? undo.use(new FifoReader(libc, paths.stderr)) : undefined;
  const stdin = paths.stdin ? undo.use(new FifoWriter(libc, paths.stdin, { reader: "absent" })) : undefined;

  const process = new TaskProcess(client, id, execId);
  const waiting = new AbortController();
  undo.defer(() => waiting.abort());
  undo.defer(() => abandon(process, context.log));
  let pid: number;
  try {
    using _turn = await context.starts.acquire(id, options.signal);
    await client.tasks.exec({
      containerId: id,
      execId,
      ...paths,
      terminal: tty,
      spec: { typeUrl: PROCESS_TYPE_URL, value: new TextEncoder().encode(JSON.stringify(spec)) },
    }, { signal: options.signal });
    pid = (await client.tasks.start({ containerId: id, execId }, { signal: options.signal })).pid;
  } catch (error) {
    throw execStartError(error, options.args[0], id);
  }
  if (tty && options.window) await process.resize(options.window);
  const exited = process.wait(waiting.signal);
  undo.move();
  return new ExecSession({
    process,
    pid,
    tty,
    stdin,
    stdout,
    stderr,
    exited,
    stopWaiting: () => waiting.abort(),
    cleanUp: () => removeDirectory(directory, context.log),
    log: context.log,
  });
}

/** Ends and removes a process whose start failed or was given up, however far it came. */
async function abandon(process: TaskProcess, log: Log): Promise<void> {
  try {
    await process.kill(SIGKILL);
    await process.delete(UNDO_TIMEOUT_MS);
  } catch (error) {
    const { containerId, execId } = process;
    log.warn("cannot remove an exec'd process", { containerId, execId, error: String(error) });
  }
}

/** The process section of a container's spec. */
async function processOf(client: ContainerdClient, id: string, signal?: AbortSignal): Promise<ProcessSpec> {
  const { container } = await client.containers.get({ id }, { signal });
  try {
    const spec = JSON.parse(new TextDecoder().decode(container!.spec!.value)) as { process?: ProcessSpec };
    return spec.process ?? {};
  } catch (error) {
    throw new RuntimeError("failed", `Cannot exec in "${id}": its spec cannot be read`, { cause: error });
  }
}

async function makeDirectory(path: string): Promise<void> {
  try {
    await Deno.mkdir(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw errorFromIo(error, `make directory "${path}"`);
  }
}

async function removeDirectory(path: string, log: Log): Promise<void> {
  try {
    await Deno.remove(path, { recursive: true });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    log.warn("cannot remove a directory", { path, error: String(error) });
  }
}
