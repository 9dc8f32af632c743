import { DecodeError } from "./error.ts";
import { LIMITS } from "./limits.ts";
import { MsgpackReader } from "./msgpack_reader.ts";
import { MsgpackWriter } from "./msgpack_writer.ts";

/** Whom a query is for. */
export type QueryFilter =
  | { kind: "nodes"; nodes: string[] }
  /** `expr` is an RE2 regular expression, searched for anywhere in the tag's value. */
  | { kind: "tag"; tag: string; expr: string };

const NODES = 0;
const TAG = 1;

/** Encodes one filter of a query. */
export function encodeFilter(filter: QueryFilter): Uint8Array {
  const out = new MsgpackWriter();
  if (filter.kind === "nodes") {
    out.byte(NODES).array(filter.nodes.length);
    for (const node of filter.nodes) out.string(node);
  } else {
    out.byte(TAG).map(2).string("Expr").string(filter.expr).string("Tag").string(filter.tag);
  }
  return out.finish();
}

/** Decodes one filter of a query. Throws {@linkcode DecodeError}, also where its kind is unknown. */
export function decodeFilter(bytes: Uint8Array): QueryFilter {
  const reader = new MsgpackReader().reset(bytes);
  const kind = reader.byte();
  if (kind === NODES) {
    const nodes: string[] = [];
    const count = reader.array(LIMITS.filterNodes) ?? 0;
    for (let i = 0; i < count; i++) nodes.push(reader.string());
    return { kind: "nodes", nodes };
  }
  if (kind !== TAG) throw new DecodeError("filter", `kind ${kind} is unknown`);
  let tag = "";
  let expr = "";
  for (let entries = reader.map(); entries > 0; entries--) {
    const field = reader.string();
    if (field === "Tag") tag = reader.string();
    else if (field === "Expr") expr = reader.string(LIMITS.packetBytes);
    else reader.skip();
  }
  return { kind: "tag", tag, expr };
}
