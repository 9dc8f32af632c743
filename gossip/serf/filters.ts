import { DecodeError } from "../codec/error.ts";
import { decodeFilter, type QueryFilter } from "../codec/filter.ts";
import type { Tags } from "../codec/tags.ts";
import { Re2 } from "../regexp/match.ts";
import { RegExpError } from "../regexp/parse.ts";

/** Whether all of a query's filters take this node. One that cannot be read takes none. */
export function filtersMatch(filters: readonly Uint8Array[], node: { name: string; tags: Tags }): boolean {
  return filters.every((bytes) => filterMatches(bytes, node));
}

/** What is wrong with a filter of this node's own, or undefined. */
export function filterFault(filter: QueryFilter): string | undefined {
  if (filter.kind === "nodes") return undefined;
  try {
    new Re2(filter.expr);
    return undefined;
  } catch (error) {
    if (!(error instanceof RegExpError)) throw error;
    return `tag "${filter.tag}": "${filter.expr}" is no regular expression: ${error.message}`;
  }
}

function filterMatches(bytes: Uint8Array, node: { name: string; tags: Tags }): boolean {
  try {
    const filter = decodeFilter(bytes);
    if (filter.kind === "nodes") return filter.nodes.includes(node.name);
    return new Re2(filter.expr).test(node.tags.get(filter.tag) ?? "");
  } catch (error) {
    if (error instanceof DecodeError || error instanceof RegExpError) return false;
    throw error;
  }
}
