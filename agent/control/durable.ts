import type { Log } from "../../runtime/log.ts";

const INCARNATION_FILE = "incarnation";
const CORDON_FILE = "cordoned";
const TOMBSTONE_FILE = "tombstones.json";

/** What a node's part in the cluster must know again after a restart; small files in the data dir. */
export class DurableFacts {
  readonly #dir: string;
  readonly #log: Log;
  #isCordoned: boolean;
  #saving: Promise<void> | undefined;
  #unsaved: (() => string) | undefined;

  private constructor(dir: string, options: { isCordoned: boolean; log: Log }) {
    this.#dir = dir;
    this.#log = options.log;
    this.#isCordoned = options.isCordoned;
  }

  /** Reads the folder, made where it is missing. Throws an Error that names it. */
  static async open(dir: string, log: Log): Promise<DurableFacts> {
    try {
      await Deno.mkdir(dir, { recursive: true, mode: 0o700 });
    } catch (cause) {
      throw new Error(`Cannot make "${dir}": ${cause instanceof Error ? cause.message : cause}`, { cause });
    }
    const isCordoned = await readIfThere(`${dir}/${CORDON_FILE}`) !== undefined;
    return new DurableFacts(dir, { isCordoned, log });
  }

  /** Start of this agent in milliseconds since the epoch; higher than that of any before, whatever the clock says. */
  async incarnation(nowMs: number): Promise<bigint> {
    const path = `${this.#dir}/${INCARNATION_FILE}`;
    const before = Number(await readIfThere(path) ?? 0);
    const next = Math.max(nowMs, Number.isSafeInteger(before) ? before + 1 : 0);
    await writeWhole(path, `${next}\n`);
    return BigInt(next);
  }

  get isCordoned(): boolean {
    return this.#isCordoned;
  }

  /** Lasts until it is taken back, over restarts too. */
  async setCordoned(cordoned: boolean): Promise<void> {
    const path = `${this.#dir}/${CORDON_FILE}`;
    if (cordoned) await writeWhole(path, "\n");
    else await Deno.remove(path).catch(ignoreNotFound);
    this.#isCordoned = cordoned;
  }

  tombstones(): Promise<string | undefined> {
    return readIfThere(`${this.#dir}/${TOMBSTONE_FILE}`);
  }

  /** Stores what `read` gives; calls that come while one is under way are one more. */
  saveTombstones(read: () => string): void {
    this.#unsaved = read;
    this.#saving ??= this.#save();
  }

  async #save(): Promise<void> {
    for (let read = this.#unsaved; read !== undefined; read = this.#unsaved) {
      this.#unsaved = undefined;
      try {
        await writeWhole(`${this.#dir}/${TOMBSTONE_FILE}`, read());
      } catch (error) {
        this.#log.error("cannot store the tombstones", { error: String(error) });
      }
    }
    this.#saving = undefined;
  }

  /** Resolves when all is stored. */
  async flush(): Promise<void> {
    await this.#saving;
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw new Error(`Cannot read "${path}": ${error instanceof Error ? error.message : error}`, {
      cause: error,
    });
  }
}

async function writeWhole(path: string, text: string): Promise<void> {
  const draft = `${path}.${crypto.randomUUID()}`;
  try {
    await Deno.writeTextFile(draft, text, { mode: 0o600, createNew: true });
    await Deno.rename(draft, path);
  } catch (error) {
    await Deno.remove(draft).catch(ignoreNotFound);
    throw new Error(`Cannot write "${path}": ${error instanceof Error ? error.message : error}`, {
      cause: error,
    });
  }
}

function ignoreNotFound(error: unknown): void {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
}
