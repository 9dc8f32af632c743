import type { Random } from "../random.ts";
import type { Node } from "./node.ts";

/**
 * All nodes by name, and in the order in which they are probed. A node that memberlist forgets may be kept by name for
 * the layer above.
 */
export class NodeTable {
  readonly #byName = new Map<string, Node>();
  #list: Node[] = [];
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Nodes known, this one and dead ones not yet forgotten included. */
  get size(): number {
    return this.#list.length;
  }

  /** Nodes kept by name, those that memberlist has forgotten included. */
  get kept(): number {
    return this.#byName.size;
  }

  get(name: string): Node | undefined {
    const node = this.#byName.get(name);
    return node !== undefined && node.index >= 0 ? node : undefined;
  }

  /** The node of that name, even one that memberlist has forgotten. */
  find(name: string): Node | undefined {
    return this.#byName.get(name);
  }

  /** The node at a position of the probe order. */
  at(index: number): Node {
    return this.#list[index];
  }

  values(): readonly Node[] {
    return this.#list;
  }

  /** Every node kept by name. */
  all(): IterableIterator<Node> {
    return this.#byName.values();
  }

  /** Inserts a node at a random position, so that all are probed equally soon. */
  add(node: Node): void {
    this.#byName.set(node.name, node);
    const index = this.#random.int(this.#list.length + 1);
    const displaced = this.#list[index];
    if (displaced !== undefined) {
      displaced.index = this.#list.length;
      this.#list.push(displaced);
    }
    node.index = index;
    this.#list[index] = node;
  }

  /** Drops a node that memberlist has forgotten, unless it is back. */
  erase(node: Node): void {
    if (node.index < 0 && this.#byName.get(node.name) === node) this.#byName.delete(node.name);
  }

  /** Forgets the nodes that `isOld` names, keeps by name those that `isWanted`, and shuffles the rest. */
  sweep(isOld: (node: Node) => boolean, isWanted: (node: Node) => boolean): void {
    const kept: Node[] = [];
    for (const node of this.#list) {
      if (!isOld(node)) {
        kept.push(node);
        continue;
      }
      node.index = -1;
      if (!isWanted(node)) this.#byName.delete(node.name);
    }
    for (let i = kept.length - 1; i > 0; i--) {
      const j = this.#random.int(i + 1);
      const node = kept[i];
      kept[i] = kept[j];
      kept[j] = node;
    }
    for (let i = 0; i < kept.length; i++) kept[i].index = i;
    this.#list = kept;
  }

  /** Up to `count` different nodes that `isEligible` takes, at random. */
  pick(count: number, isEligible: (node: Node) => boolean): Node[] {
    const list = this.#list;
    const picked: Node[] = [];
    if (list.length <= 3 * count) {
      const eligible = list.filter(isEligible);
      for (let i = 0; i < count && i < eligible.length; i++) {
        const j = i + this.#random.int(eligible.length - i);
        [eligible[i], eligible[j]] = [eligible[j], eligible[i]];
        picked.push(eligible[i]);
      }
      return picked;
    }
    for (let tries = 0; tries < 3 * list.length && picked.length < count; tries++) {
      const node = list[this.#random.int(list.length)];
      if (!picked.includes(node) && isEligible(node)) picked.push(node);
    }
    return picked;
  }
}
