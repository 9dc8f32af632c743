import { equalBytes } from "./codec/text.ts";

const MAPPED_PREFIX = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/** An IP address exactly as its owner states it, and a port. Immutable. */
export class Endpoint {
  #host: string | undefined;

  constructor(
    /** 4 or 16 bytes; an IPv4 address may come in 16 (IPv4-mapped), and peers compare bytewise. */
    readonly addr: Uint8Array,
    readonly port: number,
  ) {}

  /** From an IP literal; undefined where `host` is none. */
  static parse(host: string, port: number): Endpoint | undefined {
    const addr = parseAddress(host);
    return addr && new Endpoint(addr, port);
  }

  /** The address to dial, as text; IPv4-mapped ones as IPv4. */
  get host(): string {
    return this.#host ??= formatAddress(this.addr);
  }

  /** Bytewise equality, as peers compare. */
  equals(addr: Uint8Array, port: number): boolean {
    return this.port === port && equalBytes(this.addr, addr);
  }

  /** `host:port`, with brackets around IPv6. */
  toString(): string {
    return this.host.includes(":") ? `[${this.host}]:${this.port}` : `${this.host}:${this.port}`;
  }
}

/** Text of 4 or 16 address bytes. */
export function formatAddress(addr: Uint8Array): string {
  if (addr.length === 4) return `${addr[0]}.${addr[1]}.${addr[2]}.${addr[3]}`;
  if (MAPPED_PREFIX.every((byte, i) => addr[i] === byte)) return formatAddress(addr.subarray(12));
  const groups: string[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(((addr[i] << 8) | addr[i + 1]).toString(16));
  const text = groups.join(":");
  const zeros = /(?:^|:)(?:0(?::|$)){2,}/g;
  let longest = "";
  for (const [run] of text.matchAll(zeros)) if (run.length > longest.length) longest = run;
  return longest === "" ? text : text.replace(longest, "::");
}

/** Bytes of an IP literal (4 for IPv4, 16 for IPv6, no zone); undefined where `text` is none. */
export function parseAddress(text: string): Uint8Array | undefined {
  if (!text.includes(":")) return parseIpv4(text);
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = parseGroups(halves[0]);
  const tail = halves.length === 2 ? parseGroups(halves[1]) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 16 - head.length - tail.length;
  if (halves.length === 2 ? missing < 2 : missing !== 0) return undefined;
  return new Uint8Array([...head, ...new Array<number>(missing).fill(0), ...tail]);
}

/** Splits `host:port`, `[v6]:port`, or a bare host; undefined where it is neither. */
export function splitHostPort(text: string, defaultPort: number): { host: string; port: number } | undefined {
  const bracketed = /^\[([^\]]+)\](?::(\d{1,5}))?$/.exec(text);
  const plain = bracketed ?? /^([^:]*)(?::(\d{1,5}))?$/.exec(text);
  const [host, digits] = plain ? [plain[1], plain[2]] : [text, undefined];
  const port = digits === undefined ? defaultPort : Number(digits);
  return host === "" || port > 65_535 ? undefined : { host, port };
}

function parseIpv4(text: string): Uint8Array | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (match === null) return undefined;
  const bytes = match.slice(1).map(Number);
  return bytes.every((byte) => byte <= 255) ? new Uint8Array(bytes) : undefined;
}

function parseGroups(text: string): number[] | undefined {
  if (text === "") return [];
  const bytes: number[] = [];
  const groups = text.split(":");
  for (const [i, group] of groups.entries()) {
    if (i === groups.length - 1 && group.includes(".")) {
      const v4 = parseIpv4(group);
      if (v4 === undefined) return undefined;
      bytes.push(...v4);
    } else if (/^[0-9a-fA-F]{1,4}$/.test(group)) {
      const value = parseInt(group, 16);
      bytes.push(value >> 8, value & 0xff);
    } else return undefined;
  }
  return bytes;
}
