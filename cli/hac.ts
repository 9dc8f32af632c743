import { parse } from "smol-toml";
import { MAX_CPUS, MAX_MEMORY_MIB, parseImageRef, printable } from "./parse/values.ts";

/** What a `hac.toml` of the original says. */
export interface HacFile {
  name?: string;
  description?: string;
  cores?: number;
  /** MiB. */
  memory?: number;
  /** Path of the guest kernel. */
  kernel?: string;
  /** Path of the root file system image. */
  drive?: string;
  /** Host network device. */
  interface?: string;
  /** Image reference. */
  ref?: string;
}

const SECTIONS: Record<string, Record<string, "string" | "integer">> = {
  spacecore: { name: "string", description: "string" },
  hardware: {
    cores: "integer",
    memory: "integer",
    kernel: "string",
    drive: "string",
    interface: "string",
    ref: "string",
  },
};

/** Reads the text of a `hac.toml`. Throws an Error that names the key. */
export function parseHac(text: string): HacFile {
  const file: Record<string, unknown> = {};
  for (const [section, table] of Object.entries(parse(text))) {
    const keys = Object.hasOwn(SECTIONS, section) ? SECTIONS[section] : undefined;
    if (keys === undefined) throw new Error(`unknown section [${printable(section)}]`);
    if (typeof table !== "object" || table === null || Array.isArray(table)) {
      throw new Error(`${section} is no table`);
    }
    for (const [key, value] of Object.entries(table)) {
      if (!Object.hasOwn(keys, key)) throw new Error(`unknown key ${section}.${printable(key)}`);
      if (keys[key] === "string" ? typeof value !== "string" : !Number.isInteger(value)) {
        throw new Error(`${section}.${key} is not ${keys[key] === "string" ? "a string" : "a whole number"}`);
      }
      file[key] = value;
    }
  }
  const hac = file as HacFile;
  checkRange("hardware.cores", hac.cores, MAX_CPUS);
  checkRange("hardware.memory", hac.memory, MAX_MEMORY_MIB);
  if (hac.ref !== undefined) parseImageRef(hac.ref);
  return hac;
}

function checkRange(key: string, value: number | undefined, max: number): void {
  if (value !== undefined && (value < 1 || value > max)) throw new Error(`${key} is ${value} (1 to ${max})`);
}
