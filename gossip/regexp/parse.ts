/** A regular expression as a tree. */
export type Tree =
  | { kind: "empty" }
  | { kind: "set"; ranges: readonly Range[] }
  | { kind: "assert"; what: Assertion }
  | { kind: "concat"; parts: Tree[] }
  | { kind: "either"; parts: Tree[] }
  | { kind: "repeat"; of: Tree; min: number; max: number };

/** Code points from the first to the second, both included. */
export type Range = readonly [number, number];
/** Places that take no character. */
export type Assertion = "start" | "end" | "lineStart" | "lineEnd" | "word" | "notWord";

/** An expression that is not RE2's, or exceeds a limit. */
export class RegExpError extends Error {
  override readonly name = "RegExpError";
}

/** Largest count of a repetition, as in RE2. */
export const MAX_REPEAT = 1_000;
/** Deepest nesting of groups. */
export const MAX_DEPTH = 100;
const MAX_CODE_POINT = 0x10ffff;

const DIGIT: Range[] = [[0x30, 0x39]];
const WORD: Range[] = [[0x30, 0x39], [0x41, 0x5a], [0x5f, 0x5f], [0x61, 0x7a]];
const SPACE: Range[] = [[9, 10], [12, 13], [32, 32]];
const POSIX: Record<string, Range[]> = {
  alnum: [[0x30, 0x39], [0x41, 0x5a], [0x61, 0x7a]],
  alpha: [[0x41, 0x5a], [0x61, 0x7a]],
  ascii: [[0, 0x7f]],
  blank: [[9, 9], [32, 32]],
  cntrl: [[0, 31], [127, 127]],
  digit: DIGIT,
  graph: [[33, 126]],
  lower: [[0x61, 0x7a]],
  print: [[32, 126]],
  punct: [[33, 47], [58, 64], [91, 96], [123, 126]],
  space: [[9, 13], [32, 32]],
  upper: [[0x41, 0x5a]],
  word: WORD,
  xdigit: [[0x30, 0x39], [0x41, 0x46], [0x61, 0x66]],
};
const ESCAPES: Record<string, number> = { a: 7, f: 12, n: 10, r: 13, t: 9, v: 11 };

interface Flags {
  ignoreCase: boolean;
  multiLine: boolean;
  dotAll: boolean;
  ungreedy: boolean;
}

/** Parses RE2's syntax, without Unicode classes. Throws {@linkcode RegExpError}. */
export function parseRegExp(source: string): Tree {
  return new Parser([...source]).parse();
}

class Parser {
  readonly #chars: string[];
  #at = 0;
  #depth = 0;
  #flags: Flags = { ignoreCase: false, multiLine: false, dotAll: false, ungreedy: false };

  constructor(chars: string[]) {
    this.#chars = chars;
  }

  parse(): Tree {
    const tree = this.#alternatives();
    if (this.#at < this.#chars.length) throw new RegExpError("unexpected )");
    return tree;
  }

  #alternatives(): Tree {
    if (++this.#depth > MAX_DEPTH) throw new RegExpError("expression nests too deeply");
    const parts = [this.#sequence()];
    while (this.#take("|")) parts.push(this.#sequence());
    this.#depth--;
    return parts.length === 1 ? parts[0] : { kind: "either", parts };
  }

  #sequence(): Tree {
    const parts: Tree[] = [];
    while (this.#at < this.#chars.length && this.#peek() !== "|" && this.#peek() !== ")") {
      const atom = this.#atom();
      parts.push(this.#repeated(atom));
    }
    return { kind: "concat", parts };
  }

  #atom(): Tree {
    const char = this.#next();
    switch (char) {
      case "(":
        return this.#group();
      case "[":
        return this.#class();
      case ".":
        return {
          kind: "set",
          ranges: this.#flags.dotAll ? [[0, MAX_CODE_POINT]] : [[0, 9], [11, MAX_CODE_POINT]],
        };
      case "^":
        return { kind: "assert", what: this.#flags.multiLine ? "lineStart" : "start" };
      case "$":
        return { kind: "assert", what: this.#flags.multiLine ? "lineEnd" : "end" };
      case "\\":
        return this.#escape();
      case "*":
      case "+":
      case "?":
        throw new RegExpError(`missing argument to repetition operator: ${char}`);
      default:
        return this.#literal(char.codePointAt(0)!);
    }
  }

  #literal(code: number): Tree {
    return { kind: "set", ranges: this.#cased([[code, code]]) };
  }

  #repeated(atom: Tree): Tree {
    let tree = atom;
    let again = false;
    for (;;) {
      const bounds = this.#bounds();
      if (bounds === undefined) return tree;
      if (again) throw new RegExpError("invalid nested repetition operator");
      this.#take("?");
      tree = { kind: "repeat", of: tree, min: bounds[0], max: bounds[1] };
      again = true;
    }
  }

  #bounds(): [number, number] | undefined {
    if (this.#take("*")) return [0, Infinity];
    if (this.#take("+")) return [1, Infinity];
    if (this.#take("?")) return [0, 1];
    if (this.#peek() !== "{") return undefined;
    const rest = this.#chars.slice(this.#at, this.#at + 16).join("");
    const match = /^\{(\d+)(?:(,)(\d*))?\}/.exec(rest);
    if (match === null) return undefined; // A literal brace, as in RE2.
    this.#at += match[0].length;
    const min = Number(match[1]);
    const max = match[2] === undefined ? min : match[3] === "" ? Infinity : Number(match[3]);
    if (min > MAX_REPEAT || (max !== Infinity && max > MAX_REPEAT) || max < min) {
      throw new RegExpError(`invalid repeat count: ${match[0]}`);
    }
    return [min, max];
  }

  #group(): Tree {
    const outer = this.#flags;
    if (this.#take("?")) {
      if (this.#take("P") || this.#peek() === "<") this.#groupName();
      else if (this.#groupFlags()) return { kind: "empty" };
    }
    const tree = this.#alternatives();
    if (!this.#take(")")) throw new RegExpError("missing closing )");
    this.#flags = outer;
    return tree;
  }

  #groupName(): void {
    if (!this.#take("<")) throw new RegExpError("invalid named capture");
    let name = "";
    while (this.#peek() !== ">") name += this.#next();
    this.#at++;
    if (!/^\w+$/.test(name)) throw new RegExpError("invalid named capture");
  }

  /** Reads `flags)` or `flags:`; true where the group ends with them, so that they hold for the rest. */
  #groupFlags(): boolean {
    const flags = { ...this.#flags };
    let value = true;
    for (;;) {
      const char = this.#next();
      if (char === ":" || char === ")") {
        this.#flags = flags;
        return char === ")";
      }
      if (char === "-" && value) value = false;
      else if (char === "i") flags.ignoreCase = value;
      else if (char === "m") flags.multiLine = value;
      else if (char === "s") flags.dotAll = value;
      else if (char === "U") flags.ungreedy = value;
      else throw new RegExpError("invalid or unsupported group syntax");
    }
  }

  #escape(): Tree {
    const char = this.#next();
    switch (char) {
      case "A":
        return { kind: "assert", what: "start" };
      case "z":
        return { kind: "assert", what: "end" };
      case "b":
        return { kind: "assert", what: "word" };
      case "B":
        return { kind: "assert", what: "notWord" };
      case "Q": {
        const parts: Tree[] = [];
        while (this.#at < this.#chars.length) {
          if (this.#chars[this.#at] === "\\" && this.#chars[this.#at + 1] === "E") {
            this.#at += 2;
            break;
          }
          parts.push(this.#literal(this.#next().codePointAt(0)!));
        }
        return { kind: "concat", parts };
      }
    }
    const perl = perlClass(char);
    if (perl !== undefined) return { kind: "set", ranges: perl };
    return this.#literal(this.#escapedCode(char));
  }

  #escapedCode(char: string): number {
    if (char in ESCAPES) return ESCAPES[char];
    if (char === "x") return this.#hex();
    if (/[0-7]/.test(char)) {
      let digits = char;
      while (digits.length < 3 && /[0-7]/.test(this.#peek() ?? "")) digits += this.#next();
      if (char !== "0" && digits.length < 2) throw new RegExpError("backreferences are not supported");
      return parseInt(digits, 8);
    }
    if (/[A-Za-z89]/.test(char)) throw new RegExpError(`invalid escape sequence: \\${char}`);
    return char.codePointAt(0)!;
  }

  #hex(): number {
    let digits = "";
    if (this.#take("{")) {
      while (this.#peek() !== "}") digits += this.#next();
      this.#at++;
    } else digits = this.#next() + this.#next();
    const code = /^[0-9a-fA-F]{1,6}$/.test(digits) ? parseInt(digits, 16) : NaN;
    if (!(code <= MAX_CODE_POINT)) throw new RegExpError("invalid escape sequence: \\x");
    return code;
  }

  #class(): Tree {
    const negated = this.#take("^");
    let ranges: Range[] = [];
    let first = true;
    while (first || this.#peek() !== "]") {
      first = false;
      const posix = /^\[:(\^?)(\w+):\]/.exec(this.#chars.slice(this.#at, this.#at + 12).join(""));
      if (posix !== null) {
        const set = Object.hasOwn(POSIX, posix[2]) ? POSIX[posix[2]] : undefined;
        if (set === undefined) throw new RegExpError(`invalid character class range: ${posix[0]}`);
        this.#at += posix[0].length;
        ranges.push(...(posix[1] ? invert(set) : set));
        continue;
      }
      const from = this.#classItem();
      if (typeof from !== "number") {
        ranges.push(...from);
      } else if (this.#peek() === "-" && this.#chars[this.#at + 1] !== "]") {
        this.#at++;
        const to = this.#classItem();
        if (typeof to !== "number" || to < from) throw new RegExpError("invalid character class range");
        ranges.push([from, to]);
      } else ranges.push([from, from]);
    }
    this.#at++;
    ranges = this.#cased(ranges);
    return { kind: "set", ranges: negated ? invert(ranges) : ranges };
  }

  #classItem(): number | Range[] {
    const char = this.#next();
    if (char !== "\\") return char.codePointAt(0)!;
    const escaped = this.#next();
    return perlClass(escaped) ?? this.#escapedCode(escaped);
  }

  #cased(ranges: Range[]): Range[] {
    if (!this.#flags.ignoreCase) return ranges;
    const both = [...ranges];
    for (const [from, to] of ranges) {
      const lower: Range = [Math.max(from, 0x61), Math.min(to, 0x7a)];
      const upper: Range = [Math.max(from, 0x41), Math.min(to, 0x5a)];
      if (lower[0] <= lower[1]) both.push([lower[0] - 32, lower[1] - 32]);
      if (upper[0] <= upper[1]) both.push([upper[0] + 32, upper[1] + 32]);
      if (from === to && from > 0x7f) {
        for (
          const other of [String.fromCodePoint(from).toLowerCase(), String.fromCodePoint(from).toUpperCase()]
        ) {
          const code = other.codePointAt(0)!;
          if ([...other].length === 1) both.push([code, code]);
        }
      }
    }
    return both;
  }

  #peek(): string | undefined {
    return this.#chars[this.#at];
  }

  #take(char: string): boolean {
    if (this.#chars[this.#at] !== char) return false;
    this.#at++;
    return true;
  }

  #next(): string {
    const char = this.#chars[this.#at++];
    if (char === undefined) throw new RegExpError("the expression ends too early");
    return char;
  }
}

function perlClass(char: string): Range[] | undefined {
  switch (char) {
    case "d":
      return DIGIT;
    case "D":
      return invert(DIGIT);
    case "w":
      return WORD;
    case "W":
      return invert(WORD);
    case "s":
      return SPACE;
    case "S":
      return invert(SPACE);
  }
}

function invert(ranges: readonly Range[]): Range[] {
  const sorted = [...ranges].sort((a, b) => a[0] - b[0]);
  const out: Range[] = [];
  let next = 0;
  for (const [from, to] of sorted) {
    if (from > next) out.push([next, from - 1]);
    next = Math.max(next, to + 1);
  }
  if (next <= MAX_CODE_POINT) out.push([next, MAX_CODE_POINT]);
  return out;
}
