/**
 * Rendezvous (highest random weight) hashing, Thaler and Ravishankar 1998: every node ranks all nodes for a key alike,
 * and when one goes only its keys move.
 */

/** Two lanes of 32 bits, well mixed, of a text (murmur3's mixing steps over its UTF-16 units). */
export function hashText(text: string): readonly [number, number] {
  let [a, b] = [0x9e3779b9 ^ text.length, 0x85ebca6b];
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    a = Math.imul(rotate(a ^ Math.imul(unit, 0xcc9e2d51), 13), 5) + 0xe6546b64 | 0;
    b = Math.imul(rotate(b ^ Math.imul(unit, 0x1b873593), 15), 9) + 0x38b34ae5 | 0;
  }
  return [mix(a ^ rotate(b, 16)), mix(b ^ Math.imul(a, 0xc2b2ae35))];
}

/** Ranks nodes for keys. Hashes each node id once. */
export class Rendezvous {
  readonly #nodes: readonly { id: string; hash: readonly [number, number] }[];

  constructor(nodeIds: Iterable<string>) {
    this.#nodes = Array.from(new Set(nodeIds), (id) => ({ id, hash: hashText(id) }));
  }

  get size(): number {
    return this.#nodes.length;
  }

  /** The first `count` nodes for a key; `without` is passed over. */
  first(key: string, count: number, without?: string): string[] {
    const hash = hashText(key);
    const best: { id: string; score: number }[] = [];
    for (const node of this.#nodes) {
      if (node.id === without) continue;
      const score = weight(hash, node.hash);
      let at = best.length;
      while (at > 0 && isBefore({ id: node.id, score }, best[at - 1])) at--;
      if (at >= count) continue;
      best.splice(at, 0, { id: node.id, score });
      if (best.length > count) best.pop();
    }
    return best.map(({ id }) => id);
  }

  /**
   * How many nodes come before this one for a key; -1 where it is none of them. It is looked no further than `most`: whoever
   * is far back in a long line need not know how far.
   */
  position(key: string, nodeId: string, { most = Infinity }: { most?: number } = {}): number {
    const hash = hashText(key);
    const own = this.#nodes.find(({ id }) => id === nodeId);
    if (own === undefined) return -1;
    const self = { id: nodeId, score: weight(hash, own.hash) };
    let before = 0;
    for (const node of this.#nodes) {
      if (before >= most) return most;
      if (node !== own && isBefore({ id: node.id, score: weight(hash, node.hash) }, self)) before++;
    }
    return before;
  }
}

/** A number of 53 random bits for a pair. */
function weight(key: readonly [number, number], node: readonly [number, number]): number {
  const high = mix(key[0] ^ rotate(node[0], 7) ^ Math.imul(node[1], 0x9e3779b1));
  const low = mix(key[1] ^ rotate(node[1], 19) ^ high);
  return (high >>> 0) * 0x20_0000 + (low >>> 11);
}

function isBefore(a: { id: string; score: number }, b: { id: string; score: number }): boolean {
  return a.score > b.score || (a.score === b.score && a.id < b.id);
}

function rotate(value: number, by: number): number {
  return (value << by) | (value >>> (32 - by));
}

/** murmur3's finaliser. */
function mix(value: number): number {
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return value ^ (value >>> 16);
}
