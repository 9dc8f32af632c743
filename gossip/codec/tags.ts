import { DecodeError } from "./error.ts";
import { LIMITS } from "./limits.ts";
import { MsgpackReader } from "./msgpack_reader.ts";
import { MsgpackWriter } from "./msgpack_writer.ts";
import { fromUtf8 } from "./text.ts";

/** A node's tags. */
export type Tags = ReadonlyMap<string, string>;

const TAGS = 0xff;

/** Encodes tags as meta data of a node. Throws RangeError where they exceed 512 bytes. */
export function encodeTags(tags: Tags): Uint8Array {
  const out = new MsgpackWriter().byte(TAGS).map(tags.size);
  for (const [key, value] of tags) out.string(key).string(value);
  if (out.length > LIMITS.metaBytes) {
    throw new RangeError(`Cannot encode tags: ${out.length} bytes exceed the limit of ${LIMITS.metaBytes}`);
  }
  return out.finish();
}

/** Decodes meta data. What is no map of tags is the value of the single tag `role`, as in Serf before version 3. */
export function decodeTags(meta: Uint8Array): Map<string, string> {
  if (meta[0] !== TAGS) return new Map([["role", fromUtf8(meta) ?? ""]]);
  const tags = new Map<string, string>();
  const reader = new MsgpackReader().reset(meta, 1);
  try {
    for (let entries = reader.map(); entries > 0; entries--) tags.set(reader.string(), reader.string());
  } catch (error) {
    // What came before the damage stands, as in Serf.
    if (!(error instanceof DecodeError)) throw error;
  }
  return tags;
}
