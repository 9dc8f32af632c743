import { fromBinary, toBinary } from "@bufbuild/protobuf";
import type { VmSpawnRequest } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { type EntrustRequest, EntrustRequestSchema } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";

/** Requests of other nodes' workloads kept here. */
export const MAX_ENTRUSTED = 16_384;
/** Longest time a request is kept without being entrusted again, milliseconds. */
export const ENTRUSTED_MS = 7 * 24 * 3_600_000;

const ID = /^[0-9a-f]{12}$/;

/**
 * Spawn requests that other nodes gave in trust: with them, secrets included, this node can start their workloads when
 * they die. One file each, readable by the owner alone; they outlive the agent.
 */
export class EntrustedRequests {
  readonly #dir: string;
  readonly #ids: Set<string>;

  private constructor(dir: string, ids: Set<string>) {
    this.#dir = dir;
    this.#ids = ids;
  }

  /** Opens the folder and forgets what has grown old. */
  static async open(dir: string, options: { nowMs: number; log: Log }): Promise<EntrustedRequests> {
    const ids = new Set<string>();
    try {
      await Deno.mkdir(dir, { recursive: true, mode: 0o700 });
      for await (const { name } of Deno.readDir(dir)) {
        const path = `${dir}/${name}`;
        const { mtime } = await Deno.stat(path);
        if (!ID.test(name) || options.nowMs - (mtime?.getTime() ?? 0) > ENTRUSTED_MS) await Deno.remove(path);
        else ids.add(name);
      }
    } catch (cause) {
      throw new Error(`Cannot open "${dir}": ${cause instanceof Error ? cause.message : cause}`, { cause });
    }
    if (ids.size > 0) options.log.debug("requests held in trust", { count: ids.size });
    return new EntrustedRequests(dir, ids);
  }

  get size(): number {
    return this.#ids.size;
  }

  has(id: string): boolean {
    return this.#ids.has(id);
  }

  /** Keeps it. Throws `invalid` for what is no workload's, `exhausted` when too many are kept. */
  async keep(entrusted: EntrustRequest): Promise<void> {
    const { id } = entrusted;
    if (!ID.test(id) || entrusted.request === undefined) {
      throw new RuntimeError("invalid", `Cannot keep the request of "${id.slice(0, 40)}": it is none`);
    }
    if (!this.#ids.has(id) && this.#ids.size >= MAX_ENTRUSTED) {
      throw new RuntimeError(
        "exhausted",
        `Cannot keep the request of "${id}": ${MAX_ENTRUSTED} are kept already`,
      );
    }
    const draft = `${this.#dir}/.${crypto.randomUUID()}`;
    try {
      await Deno.writeFile(draft, toBinary(EntrustRequestSchema, entrusted), {
        mode: 0o600,
        createNew: true,
      });
      await Deno.rename(draft, `${this.#dir}/${id}`);
    } catch (cause) {
      await Deno.remove(draft).catch(() => {}); // it may not have been made
      throw new RuntimeError(
        "failed",
        `Cannot keep the request of "${id}": ${cause instanceof Error ? cause.message : cause}`,
        {
          cause,
        },
      );
    }
    this.#ids.add(id);
  }

  /** The request, or undefined where none is kept. */
  async get(id: string): Promise<VmSpawnRequest | undefined> {
    if (!this.#ids.has(id)) return undefined;
    try {
      return fromBinary(EntrustRequestSchema, await Deno.readFile(`${this.#dir}/${id}`)).request;
    } catch (cause) {
      throw new RuntimeError(
        "failed",
        `Cannot read the request of "${id}": ${cause instanceof Error ? cause.message : cause}`,
        {
          cause,
        },
      );
    }
  }

  /** Forgets it, when its workload was stopped for good or runs here now. */
  async drop(id: string): Promise<void> {
    if (!this.#ids.delete(id)) return;
    await Deno.remove(`${this.#dir}/${id}`).catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    });
  }
}
