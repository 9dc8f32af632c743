/** What a tar entry is; exactly one of the kinds, a file of `content` or `bytes` when none is named. */
export interface TarEntry {
  content?: string;
  bytes?: Uint8Array;
  dir?: boolean;
  symlink?: string;
  /** Path of an earlier entry. */
  hardlink?: string;
  /** A character device. */
  device?: { major: number; minor: number };
  fifo?: boolean;
  /** By default 0755 for folders and 0644 for all else. */
  mode?: number;
  uid?: number;
  gid?: number;
  /** Extended attributes, as PAX records. */
  xattrs?: Record<string, string>;
}

const BLOCK = 512;
const TYPES = { file: "0", hardlink: "1", symlink: "2", device: "3", dir: "5", fifo: "6", pax: "x" } as const;

/**
 * A POSIX (pax) tar of the entries in their order, with every time at zero: the same entries give the same bytes. Paths
 * go in as they are, also the hostile ones. Keys of a record are paths; a list may hold a path twice.
 */
export function writeTar(
  entries: Readonly<Record<string, TarEntry>> | readonly (readonly [string, TarEntry])[],
): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  for (const [path, entry] of isList(entries) ? entries : Object.entries(entries)) {
    parts.push(...entryBlocks(path, entry));
  }
  parts.push(new Uint8Array(2 * BLOCK));
  return concat(parts);
}

/** One byte sequence after the other. */
export function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    result.set(part, offset);
    offset += part.length;
  }
  return result;
}

function isList<T>(value: unknown | readonly T[]): value is readonly T[] {
  return Array.isArray(value);
}

function entryBlocks(path: string, entry: TarEntry): Uint8Array[] {
  const type = entry.dir
    ? "dir"
    : entry.symlink !== undefined
    ? "symlink"
    : entry.hardlink !== undefined
    ? "hardlink"
    : entry.device
    ? "device"
    : entry.fifo
    ? "fifo"
    : "file";
  const data = type === "file"
    ? entry.bytes ?? new TextEncoder().encode(entry.content ?? "")
    : new Uint8Array();
  const name = type === "dir" && !path.endsWith("/") ? `${path}/` : path;
  const link = entry.symlink ?? entry.hardlink ?? "";
  const records = Object.entries(entry.xattrs ?? {}).map(([key, value]) =>
    paxRecord(`SCHILY.xattr.${key}`, value)
  );
  if (isLong(name)) records.push(paxRecord("path", name));
  if (isLong(link)) records.push(paxRecord("linkpath", link));
  const pax = new TextEncoder().encode(records.join(""));
  return [
    ...(pax.length > 0 ? [header({ name: "pax", type: "pax", size: pax.length }), pad(pax)] : []),
    header({ ...entry, name, link, type, size: data.length }),
    pad(data),
  ];
}

function isLong(text: string): boolean {
  return new TextEncoder().encode(text).length > 100;
}

/** `<length> key=value\n`, where the length counts its own digits. */
function paxRecord(key: string, value: string): string {
  const body = new TextEncoder().encode(` ${key}=${value}\n`).length;
  let length = body + String(body).length;
  if (body + String(length).length !== length) length = body + String(length).length;
  return `${length} ${key}=${value}\n`;
}

function header(
  fields: {
    name: string;
    link?: string;
    type: keyof typeof TYPES;
    size: number;
    mode?: number;
    uid?: number;
    gid?: number;
    device?: { major: number; minor: number };
  },
): Uint8Array {
  const block = new Uint8Array(BLOCK);
  const text = (value: string, offset: number, length: number) =>
    block.set(new TextEncoder().encode(value).subarray(0, length), offset);
  const octal = (value: number, offset: number, length: number) =>
    text(value.toString(8).padStart(length - 1, "0"), offset, length);
  text(fields.name, 0, 100);
  octal(fields.mode ?? (fields.type === "dir" ? 0o755 : 0o644), 100, 8);
  octal(fields.uid ?? 0, 108, 8);
  octal(fields.gid ?? 0, 116, 8);
  octal(fields.size, 124, 12);
  octal(0, 136, 12);
  text(TYPES[fields.type], 156, 1);
  text(fields.link ?? "", 157, 100);
  text("ustar\x0000", 257, 8);
  octal(fields.device?.major ?? 0, 329, 8);
  octal(fields.device?.minor ?? 0, 337, 8);
  // The checksum is over the header with its own field as spaces.
  text("        ", 148, 8);
  const sum = block.reduce((total, byte) => total + byte, 0);
  text(`${sum.toString(8).padStart(6, "0")}\0 `, 148, 8);
  return block;
}

function pad(data: Uint8Array): Uint8Array {
  const padded = new Uint8Array(Math.ceil(data.length / BLOCK) * BLOCK);
  padded.set(data);
  return padded;
}
