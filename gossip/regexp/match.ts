import { type Assertion, parseRegExp, type Range, RegExpError, type Tree } from "./parse.ts";

/** States of a compiled expression; larger expressions are refused. */
export const MAX_STATES = 4_000;

type State =
  | { kind: "set"; ranges: readonly Range[]; next: number }
  | { kind: "assert"; what: Assertion; next: number }
  | { kind: "split"; a: number; b: number }
  | { kind: "match" };

/**
 * An RE2 expression, searched for anywhere in a text as Go's `regexp.MatchString` does. Runs all alternatives at once,
 * so the time is bounded by the size of the expression times that of the text, whatever a peer sends.
 */
export class Re2 {
  readonly #states: State[] = [{ kind: "match" }];
  readonly #start: number;

  /** Throws {@linkcode RegExpError}. */
  constructor(source: string) {
    this.#start = this.#compile(parseRegExp(source), 0);
  }

  /** Whether the expression matches anywhere in `text`. */
  test(text: string): boolean {
    const codes = Array.from(text, (char) => char.codePointAt(0)!);
    let current = new Set<number>();
    for (let at = 0; at <= codes.length; at++) {
      this.#follow(this.#start, current, codes, at);
      if (current.has(0)) return true;
      const next = new Set<number>();
      const code = codes[at];
      for (const index of current) {
        const state = this.#states[index];
        if (state.kind !== "set" || code === undefined || !contains(state.ranges, code)) continue;
        this.#follow(state.next, next, codes, at + 1);
      }
      if (next.has(0)) return true;
      current = next;
    }
    return false;
  }

  /** Adds a state and all that it leads to without a character. */
  #follow(from: number, into: Set<number>, codes: readonly number[], at: number): void {
    const todo = [from];
    while (todo.length > 0) {
      const index = todo.pop()!;
      if (into.has(index)) continue;
      into.add(index);
      const state = this.#states[index];
      if (state.kind === "split") todo.push(state.a, state.b);
      else if (state.kind === "assert" && holds(state.what, codes, at)) todo.push(state.next);
    }
  }

  /** Compiles `tree` so that it goes on to state `next`; returns where it begins. */
  #compile(tree: Tree, next: number): number {
    switch (tree.kind) {
      case "empty":
        return next;
      case "set":
        return this.#add({ kind: "set", ranges: tree.ranges, next });
      case "assert":
        return this.#add({ kind: "assert", what: tree.what, next });
      case "concat":
        return tree.parts.reduceRight((after, part) => this.#compile(part, after), next);
      case "either": {
        const starts = tree.parts.map((part) => this.#compile(part, next));
        return starts.reduceRight((b, a) => this.#add({ kind: "split", a, b }));
      }
      case "repeat":
        return this.#repeat(tree, next);
    }
  }

  #repeat(tree: Tree & { kind: "repeat" }, next: number): number {
    let start = next;
    if (tree.max === Infinity) {
      const loop = this.#add({ kind: "split", a: next, b: next });
      this.#states[loop] = { kind: "split", a: this.#compile(tree.of, loop), b: next };
      start = loop;
    } else {
      for (let i = tree.min; i < tree.max; i++) {
        start = this.#add({ kind: "split", a: this.#compile(tree.of, start), b: next });
      }
    }
    for (let i = 0; i < tree.min; i++) start = this.#compile(tree.of, start);
    return start;
  }

  #add(state: State): number {
    if (this.#states.length >= MAX_STATES) throw new RegExpError("expression is too large");
    return this.#states.push(state) - 1;
  }
}

function contains(ranges: readonly Range[], code: number): boolean {
  for (const [from, to] of ranges) if (code >= from && code <= to) return true;
  return false;
}

function holds(what: Assertion, codes: readonly number[], at: number): boolean {
  switch (what) {
    case "start":
      return at === 0;
    case "end":
      return at === codes.length;
    case "lineStart":
      return at === 0 || codes[at - 1] === 10;
    case "lineEnd":
      return at === codes.length || codes[at] === 10;
    case "word":
      return isWord(codes[at - 1]) !== isWord(codes[at]);
    case "notWord":
      return isWord(codes[at - 1]) === isWord(codes[at]);
  }
}

function isWord(code: number | undefined): boolean {
  return code !== undefined && /\w/.test(String.fromCodePoint(code));
}
