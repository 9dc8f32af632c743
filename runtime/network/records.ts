import { guestLink } from "./chain.ts";
import type { CniResult } from "./cni.ts";
import type { IsolatedGuest } from "./isolation.ts";
import type { NetworkRules } from "./rules.ts";

/** What must outlive the agent to take a guest's network down again. */
export interface GuestRecord {
  id: string;
  tap: boolean;
  /** The newest ADD result; absent while there is none yet. */
  result?: CniResult;
  /** Every plugin has said yes. */
  complete: boolean;
  /** What narrows its network; absent means nothing. */
  rules?: NetworkRules;
}

/**
 * One JSON file per guest, written before the first thing is made and removed after the last one is gone. They are in
 * the data directory: leases outlive a reboot too.
 */
export class GuestRecords {
  constructor(readonly dir: string) {}

  async write(record: GuestRecord): Promise<void> {
    const path = this.#path(record.id);
    try {
      await Deno.writeTextFile(`${path}.tmp`, JSON.stringify(record), { mode: 0o600 });
      await Deno.rename(`${path}.tmp`, path);
    } catch (error) {
      // On a full disk the file is there all the same, empty.
      await Deno.remove(`${path}.tmp`).catch(() => {});
      throw error;
    }
  }

  /** The record; one a crash has cut off counts as the intent it was. */
  async read(id: string): Promise<GuestRecord | undefined> {
    let text: string;
    try {
      text = await Deno.readTextFile(this.#path(id));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
    try {
      return { ...JSON.parse(text), id };
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      return { id, tap: false, complete: false };
    }
  }

  async remove(id: string): Promise<void> {
    for (const path of [this.#path(id), `${this.#path(id)}.tmp`]) {
      try {
        await Deno.remove(path);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
  }

  async ids(): Promise<string[]> {
    const names = await fileNames(this.dir);
    return [...new Set(names.map((name) => /^(.+)\.json(\.tmp)?$/.exec(name)?.[1] ?? []).flat())];
  }

  /** Every guest that has an address. */
  async links(): Promise<IsolatedGuest[]> {
    const records = await Promise.all((await this.ids()).map((id) => this.read(id)));
    return records.flatMap((record) => record === undefined ? [] : isolatedGuest(record) ?? []);
  }

  #path(id: string): string {
    return `${this.dir}/${id}.json`;
  }
}

/** The guest of a record; `undefined` while it has no address. */
export function isolatedGuest({ result, rules }: GuestRecord): IsolatedGuest | undefined {
  const link = result === undefined ? undefined : guestLink(result);
  return link === undefined || rules === undefined ? link : { ...link, rules };
}

/** An address host-local has given away. */
export interface Lease {
  id: string;
  address: string;
}

/** The leases in host-local's folder of one network: files named by address that hold the container id. */
export async function readLeases(dir: string): Promise<Lease[]> {
  const leases: Lease[] = [];
  for (const name of await fileNames(dir)) {
    if (!/^\d+\.\d+\.\d+\.\d+$/.test(name)) continue;
    try {
      leases.push({ address: name, id: (await Deno.readTextFile(`${dir}/${name}`)).split(/\r?\n/, 1)[0] });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return leases;
}

async function fileNames(dir: string): Promise<string[]> {
  try {
    return (await Array.fromAsync(Deno.readDir(dir))).filter((entry) => entry.isFile).map((entry) =>
      entry.name
    );
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}
