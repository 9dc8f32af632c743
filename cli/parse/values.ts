import { isIpv4, parsePort } from "./host_port.ts";

/** Bytes in a MiB. */
const MEBIBYTE = 1_048_576;
/** Largest CPU count that a request can carry. */
export const MAX_CPUS = 4_096;
/** Largest memory of a workload, MiB: 64 TiB. */
export const MAX_MEMORY_MIB = 67_108_864;
/** Longest environment entry, in UTF-16 units. */
export const MAX_ENV_LENGTH = 131_072;
/** Ports one workload may expose. */
export const MAX_PORTS = 64;

/** Of a wrong value, what an error shows. */
const MAX_SHOWN = 200;

/** Reads `443:8080[,…]` or `8080` (the same port on both sides) into host port → container port. */
export function parsePorts(text: string, into: ReadonlyMap<number, number> = new Map()): Map<number, number> {
  const ports = new Map(into);
  for (const pair of text.split(",")) {
    const [host, container, ...more] = pair.trim().split(":");
    if (more.length > 0) throw new Error(`"${pair}" is not HOST:CONTAINER`);
    const hostPort = parsePort(host);
    if (ports.has(hostPort)) throw new Error(`host port ${hostPort} is listed twice`);
    ports.set(hostPort, container === undefined ? hostPort : parsePort(container));
  }
  if (ports.size > MAX_PORTS) throw new Error(`more than ${MAX_PORTS} ports`);
  return ports;
}

/** Reads a CPU count such as `2` or `0.5` into thousandths. */
export function parseMilliCpus(text: string): number {
  const cpus = /^[0-9]{1,5}(\.[0-9]{1,3})?$/.test(text) ? Number(text) : NaN;
  if (!(cpus > 0 && cpus <= MAX_CPUS)) throw new Error(`"${text}" is not a CPU count (0.001 to ${MAX_CPUS})`);
  return Math.round(cpus * 1000);
}

/** Reads memory in MiB, or with a unit: `512`, `512m`, `2g`, `1.5GiB`. Returns MiB. */
export function parseMemoryMib(text: string): number {
  const match = /^([0-9]{1,9}(?:\.[0-9]{1,3})?)([kmgt]?)(i?b)?$/i.exec(text.trim());
  const factor = match === null
    ? NaN
    : { "": 1, k: 1 / 1024, m: 1, g: 1024, t: MEBIBYTE }[match[2].toLowerCase()]!;
  const mebibytes = match === null ? NaN : Number(match[1]) * factor;
  if (!(Number.isInteger(mebibytes) && mebibytes >= 1 && mebibytes <= MAX_MEMORY_MIB)) {
    throw new Error(
      `"${text}" is not a memory size (whole MiB from 1 to ${MAX_MEMORY_MIB}, or with unit: 512m, 2g)`,
    );
  }
  return mebibytes;
}

/** Checks `KEY=value`; an empty key, no `=` or a NUL is refused. */
export function parseEnvEntry(text: string): string {
  const equals = text.indexOf("=");
  if (equals < 0) throw new Error(`"${text}" is not KEY=value`);
  const key = text.slice(0, equals);
  if (!/^[^\s=\0]+$/.test(key)) throw new Error(`"${key}" is not the name of an environment variable`);
  if (text.includes("\0")) throw new Error(`the value of ${key} contains a NUL`);
  if (text.length > MAX_ENV_LENGTH) throw new Error(`the value of ${key} is longer than ${MAX_ENV_LENGTH}`);
  return text;
}

/** Checks an IPv4 network such as `192.168.127.0/24` with room for guests (/8 to /29). */
export function parseSubnet(text: string): string {
  const [address, bits, ...more] = text.split("/");
  const prefix = /^[0-9]{1,2}$/.test(bits ?? "") ? Number(bits) : NaN;
  if (more.length > 0 || !isIpv4(address) || !(prefix >= 8 && prefix <= 29)) {
    throw new Error(`"${text}" is not an IPv4 network (a.b.c.d/8 to /29)`);
  }
  const value = address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  if (value % 2 ** (32 - prefix) !== 0) throw new Error(`"${text}" has bits set beyond its prefix`);
  return text;
}

/** Reads a number such as `0.25` in a range; at most six digits after the point. */
export function parseDecimal(text: string, min: number, max: number): number {
  const value = /^[0-9]{1,9}(\.[0-9]{1,6})?$/.test(text) ? Number(text) : NaN;
  if (!(value >= min && value <= max)) throw new Error(`"${text}" is not a number from ${min} to ${max}`);
  return value;
}

/** Reads a whole number in a range. */
export function parseInteger(text: string, min: number, max: number): number {
  const value = /^[0-9]{1,15}$/.test(text) ? Number(text) : NaN;
  if (!(value >= min && value <= max)) {
    throw new Error(`"${text}" is not a whole number from ${min} to ${max}`);
  }
  return value;
}

/** Reads bytes: `10485760`, `10m`, `1GiB`. */
export function parseBytes(text: string): number {
  const match = /^([0-9]{1,15})([kmgt]?)(i?b)?$/i.exec(text.trim());
  const power = match === null ? NaN : ["", "k", "m", "g", "t"].indexOf(match[2].toLowerCase());
  const bytes = match === null ? NaN : Number(match[1]) * 1024 ** power;
  if (!Number.isSafeInteger(bytes) || bytes < 1) {
    throw new Error(`"${text}" is not a size in bytes (10485760, 10m, 1g)`);
  }
  return bytes;
}

/** Checks a workload's id or name as far as the client can: no path, no flag, no odd bytes. */
export function parseWorkloadId(text: string): string {
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/.test(text) || text.includes("..")) {
    throw new Error(`"${printable(text)}" is not a workload's id or name`);
  }
  return text;
}

/** Checks a DNS label, as a workload's name is one of its URL. */
export function parseName(text: string): string {
  if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(text)) {
    throw new Error(`"${printable(text)}" is not a name (1 to 63 of a-z, 0-9 and -, not at either end)`);
  }
  return text;
}

/** Checks that an image reference is not empty and holds no spaces or control characters; the agent parses the rest. */
export function parseImageRef(text: string): string {
  if (!/^[\x21-\x7e]{1,512}$/.test(text) || text.startsWith("-")) {
    throw new Error(`"${printable(text)}" is not an image reference`);
  }
  return text;
}

/** Reads `KEY=value` into a pair with a non-empty key. */
export function parsePair(text: string): [string, string] {
  const equals = text.indexOf("=");
  if (equals < 1) throw new Error(`"${printable(text)}" is not KEY=value`);
  return [text.slice(0, equals), text.slice(equals + 1)];
}

/** Text from outside, made safe for one line on a terminal. */
export function printable(text: string, maxLength = MAX_SHOWN): string {
  // deno-lint-ignore no-control-regex
  return text.slice(0, maxLength).replace(/[\x00-\x1f\x7f-\x9f]/g, "?");
}
