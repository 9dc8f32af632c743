import { AbortScope } from "../abort_scope.ts";
import { taskEvents } from "../containerd/events.ts";
import type {
  AttachOptions,
  ContainerEngine,
  ContainerEvent,
  ContainerInfo,
  ContainerMetrics,
  ContainerSpec,
  CreateOptions,
  ExecOptions,
  GarbageReport,
  LogOptions,
  ProcessSession,
} from "../engine.ts";
import { RuntimeError } from "../errors.ts";
import type { NetworkRules } from "../network/mod.ts";
import { type EngineContext, findContainer, findTask, isAlive, listContainers } from "./context.ts";
import { createContainer } from "./create.ts";
import { collectGarbage } from "./garbage.ts";
import { TaskMetrics } from "./metrics.ts";
import { KeyedMutex } from "../keyed_mutex.ts";
import { Leftovers } from "./leftovers.ts";
import { updateLabels } from "./labels.ts";
import { containerInfo, decodeJson, decodeRecord, recordLabels } from "./record.ts";
import { removeContainer } from "./remove.ts";
import { restartContainer } from "./restart.ts";

/** Longest container id that containerd takes. */
export const MAX_ID_LENGTH = 76;

/** What a {@linkcode ContainerdEngine} is made of. */
export interface ContainerdEngineOptions extends Omit<EngineContext, "metrics" | "onLeft"> {
  /** Whether that containerd is this program's own. */
  isPrivate: boolean;
}

/**
 * The {@linkcode ContainerEngine} on containerd. All it knows is in containerd's records and in its parts' files: a
 * new engine on the same containerd goes on where the last one ended. Operations on one id run one after the other.
 */
export class ContainerdEngine implements ContainerEngine {
  readonly #context: ContainerdEngineOptions & EngineContext;
  readonly #mutex = new KeyedMutex();
  readonly #stopped = new AbortController();
  readonly #leftovers: Leftovers;
  /** Of which something could not be undone as containerd was away, by operations that are not over yet. */
  readonly #left = new Set<string>();

  constructor(options: ContainerdEngineOptions) {
    const { client, log } = options;
    const onLeft = (id: string, error: unknown) => {
      if (error instanceof RuntimeError && error.code === "unavailable") this.#left.add(id);
    };
    this.#context = { ...options, metrics: new TaskMetrics(options), onLeft };
    this.#leftovers = new Leftovers({ client, collect: () => this.collectGarbage(), log });
  }

  create(spec: ContainerSpec, options: CreateOptions = {}): Promise<ContainerInfo> {
    return this.#change("create", spec.id, {
      signal: options.signal,
      work: (signal) => createContainer(this.#context, spec, { ...options, signal }),
    });
  }

  restart(
    id: string,
    options: CreateOptions & { labels?: Record<string, string> } = {},
  ): Promise<ContainerInfo> {
    return this.#change("restart", id, {
      signal: options.signal,
      work: async (signal) => {
        await restartContainer(this.#context, id, { ...options, signal });
        return await this.get(id);
      },
    });
  }

  remove(id: string, options: { graceMs?: number; signal?: AbortSignal } = {}): Promise<void> {
    return this.#change("remove", id, {
      signal: options.signal,
      work: (signal) => removeContainer(this.#context, id, { ...options, signal }),
    });
  }

  async list(): Promise<ContainerInfo[]> {
    // In this order a container that is being started is never seen without its task.
    const containers = await listContainers(this.#context);
    const { tasks } = await this.#context.client.tasks.list({});
    const taskOf = new Map(tasks.map((task) => [task.id, task]));
    return containers.flatMap((container) => {
      const record = decodeRecord(container);
      if (record?.phase !== "ready") return [];
      const logPath = this.#context.io.logPath(container.id);
      return [containerInfo({ container, record, task: taskOf.get(container.id), logPath })];
    });
  }

  async get(id: string): Promise<ContainerInfo> {
    const { container, record } = await this.#find("get", id);
    const task = await findTask(this.#context, id);
    return containerInfo({ container, record, task, logPath: this.#context.io.logPath(id) });
  }

  async spec(id: string): Promise<Record<string, unknown>> {
    const { container } = await this.#find("inspect", id);
    return container.spec === undefined ? {} : decodeJson(container.spec) as Record<string, unknown>;
  }

  async metrics(id: string, options: { signal?: AbortSignal } = {}): Promise<ContainerMetrics> {
    checkId("measure", id);
    return await this.#context.metrics.read(id, options.signal);
  }

  setLabels(id: string, labels: Record<string, string>): Promise<void> {
    return this.#change("label", id, {
      work: async (signal) => {
        await this.#find("label", id);
        await updateLabels(this.#context, id, { labels, signal });
      },
    });
  }

  setNetworkRules(id: string, rules: NetworkRules | undefined): Promise<void> {
    return this.#change("set network rules of", id, {
      work: async (signal) => {
        await this.#find("set network rules of", id);
        // Kept first: a restart brings what could not be brought now.
        await updateLabels(this.#context, id, {
          labels: recordLabels({ networkRules: rules ?? null }),
          signal,
        });
        try {
          await this.#context.network.setRules(id, rules);
        } catch (error) {
          if (!(error instanceof RuntimeError && error.code === "not-found")) throw error;
        }
      },
    });
  }

  async hasLog(id: string): Promise<boolean> {
    checkId("read the log of", id);
    return await this.#context.io.hasLog(id);
  }

  async *logs(id: string, options: LogOptions = {}): AsyncIterable<Uint8Array> {
    checkId("read the log of", id);
    yield* this.#context.io.logs(id, options);
  }

  async exec(id: string, options: ExecOptions): Promise<ProcessSession> {
    await this.#find("exec in", id);
    const task = await findTask(this.#context, id, options.signal);
    if (task === undefined || !isAlive(task)) {
      throw new RuntimeError("precondition", `Cannot exec in container "${id}": it is not running`);
    }
    return await this.#context.io.exec(id, options);
  }

  async attach(id: string, options: AttachOptions): Promise<ProcessSession> {
    await this.#find("attach to", id);
    return await this.#context.io.attach(id, options);
  }

  async *watch(signal: AbortSignal): AsyncIterable<ContainerEvent> {
    const { client, log } = this.#context;
    const scope = AbortSignal.any([signal, this.#stopped.signal]);
    for await (const event of taskEvents(client, { signal: scope, log })) {
      if (event.type === "resync") yield event;
      if (event.type === "oom") yield { type: "oom", id: event.containerId };
      if (event.type === "exit" && event.execId === undefined) {
        const { containerId, pid, exitCode, atMs } = event;
        yield { type: "exit", id: containerId, pid, exitCode, atMs };
      }
    }
  }

  collectGarbage(): Promise<GarbageReport> {
    return collectGarbage(this.#context, this.#mutex);
  }

  async runtimes(): Promise<string[]> {
    return await this.#context.runtimes.working();
  }

  async health(): Promise<{ version: string; socket: string; isPrivate: boolean }> {
    const { client, isPrivate } = this.#context;
    const { version } = await client.version.version({});
    return { version, socket: client.socket, isPrivate };
  }

  /** Cancels what is under way (creations are undone) and waits for its end. Containers run on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped.abort(new RuntimeError("canceled", "The container engine is closed"));
    await this.#leftovers[Symbol.asyncDispose]();
    await this.#mutex.idle();
  }

  /** Runs an operation when no other one is busy with the id; every failure of it is a RuntimeError. */
  async #change<T>(
    verb: string,
    id: string,
    options: { signal?: AbortSignal; work: (signal: AbortSignal) => Promise<T> },
  ): Promise<T> {
    checkId(verb, id);
    using scope = new AbortScope([this.#stopped.signal, options.signal]);
    const { signal } = scope;
    try {
      signal.throwIfAborted();
      return await this.#mutex.run(id, () => options.work(signal), { signal });
    } catch (error) {
      if (error instanceof RuntimeError && !signal.aborted) throw error;
      if (signal.aborted) {
        throw new RuntimeError("canceled", `Cannot ${verb} container "${id}": canceled`, { cause: error });
      }
      const reason = error instanceof Error ? error.message : String(error);
      throw new RuntimeError("failed", `Cannot ${verb} container "${id}": ${reason}`, { cause: error });
    } finally {
      if (this.#left.delete(id)) void this.#leftovers.add();
    }
  }

  async #find(verb: string, id: string) {
    checkId(verb, id);
    const container = await findContainer(this.#context, id);
    const record = container && decodeRecord(container);
    if (container === undefined || record?.phase !== "ready") {
      throw new RuntimeError("not-found", `Cannot ${verb} container "${id}": not found`);
    }
    return { container, record };
  }
}

/** Ids become names of cgroups, directories and namespaces. */
const ID = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;

function checkId(verb: string, id: string): void {
  if (id.length <= MAX_ID_LENGTH && ID.test(id)) return;
  throw new RuntimeError(
    "invalid",
    `Cannot ${verb} container "${id.slice(0, MAX_ID_LENGTH)}": it is no container id`,
  );
}
