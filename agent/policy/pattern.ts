/** A pattern made ready. */
export type Match = (text: string) => boolean;

/** Compiles a pattern in which `*` stands for any text, also none. */
export function glob(pattern: string): Match {
  if (!pattern.includes("*")) return (text) => text === pattern;
  const [first, ...rest] = pattern.split(/\*+/);
  const last = rest.pop()!;
  const least = first.length + last.length;
  if (rest.length === 0) {
    return (text) => text.length >= least && text.startsWith(first) && text.endsWith(last);
  }
  return (text) => {
    if (text.length < least || !text.startsWith(first) || !text.endsWith(last)) return false;
    // The leftmost place for each piece leaves the most for the others.
    let at = first.length;
    for (const piece of rest) {
      const found = text.indexOf(piece, at);
      if (found < 0) return false;
      at = found + piece.length;
    }
    return at <= text.length - last.length;
  };
}

/** Compiles a pattern in which `*` stands for any text without `/`, and `**` for any text. */
export function pathGlob(pattern: string): Match {
  if (!pattern.includes("*")) return (text) => text === pattern;
  const units = pattern.split(/(\*+)/).flatMap((part): (string | symbol)[] => {
    if (part[0] !== "*") return part.split("");
    return [part.length > 1 ? ANY : ANY_BUT_SLASH];
  });
  return places(units);
}

/** Compiles the question whether one of them matches. */
export function anyOf(matches: readonly Match[]): Match {
  if (matches.length === 1) return matches[0];
  return (text) => matches.some((match) => match(text));
}

const ANY = Symbol("any text");
const ANY_BUT_SLASH = Symbol("any text without a slash");

/**
 * Moves a set of places in the pattern along the text: the time is bounded by the product of both lengths whatever the
 * pattern, which a regular expression's is not.
 */
function places(units: readonly (string | symbol)[]): Match {
  const end = units.length;
  return (text) => {
    let current = reach(new Set([0]));
    for (let at = 0; at < text.length && current.size > 0; at++) {
      const unit = text[at];
      const next = new Set<number>();
      for (const place of current) {
        const expected = units[place];
        if (expected === unit) next.add(place + 1);
        else if (expected === ANY || (expected === ANY_BUT_SLASH && unit !== "/")) next.add(place);
      }
      current = reach(next);
    }
    return current.has(end);
  };

  /** Adds the places behind stars, which may stand for nothing. */
  function reach(found: Set<number>): Set<number> {
    for (const place of found) if (typeof units[place] === "symbol") found.add(place + 1);
    return found;
  }
}
