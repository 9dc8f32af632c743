/** Nesting of a document that is still read. */
export const MAX_JSON_DEPTH = 32;

/**
 * Reads a JSON document and refuses what JSON.parse lets through: invalid UTF-8, and a key listed twice in one object
 * (a port map would silently lose an entry). Throws an Error with the reason in words.
 */
export function parseStrictJson(bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new Error("it is not valid UTF-8", { cause: error });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error("it is not valid JSON", { cause: error });
  }
  refuseDuplicates(text);
  return value;
}

/** Walks a text that is known to be valid JSON. */
function refuseDuplicates(text: string): void {
  const scopes: (Set<string> | undefined)[] = [];
  const token = /"(?:[^"\\]|\\.)*"|[{}[\]]/gs;
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    const [found] = match;
    if (found === "{" || found === "[") {
      scopes.push(found === "{" ? new Set() : undefined);
      if (scopes.length > MAX_JSON_DEPTH) throw new Error(`it is nested deeper than ${MAX_JSON_DEPTH}`);
    } else if (found === "}" || found === "]") scopes.pop();
    else if (isKey(text, token.lastIndex)) {
      const key = JSON.parse(found) as string;
      const keys = scopes.at(-1)!;
      if (keys.has(key)) throw new Error(`the key ${JSON.stringify(key.slice(0, 100))} is listed twice`);
      keys.add(key);
    }
  }
}

/** Whether the string that ends here is a key: only a key has a colon after it. */
function isKey(text: string, end: number): boolean {
  let at = end;
  while (" \t\r\n".includes(text[at])) at++;
  return text[at] === ":";
}
