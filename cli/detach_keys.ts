/** Longest sequence of detach keys. */
export const MAX_DETACH_KEYS = 8;

/** Reads `ctrl-p,ctrl-q` or single characters into the bytes a terminal sends for them. Empty means none. */
export function parseDetachKeys(text: string): number[] {
  if (text === "") return [];
  const keys = text.split(",").map((key) => {
    const control = /^ctrl-([a-z@[\\\]^_])$/i.exec(key);
    if (control !== null) return control[1].toUpperCase().charCodeAt(0) & 0x1f;
    if (/^[\x21-\x7e]$/.test(key)) return key.charCodeAt(0);
    throw new Error(`"${key}" is not a key (a character or ctrl-<letter>)`);
  });
  if (keys.length > MAX_DETACH_KEYS) throw new Error(`more than ${MAX_DETACH_KEYS} keys`);
  return keys;
}

/**
 * Looks for the detach sequence in what is typed. Bytes that may begin it are held back until it is clear that they do
 * not, then passed on in order.
 */
export class DetachScanner {
  #matched = 0;

  constructor(readonly keys: readonly number[]) {}

  /** The bytes to pass on, and whether the sequence is complete; what follows it is dropped. */
  scan(data: Uint8Array): { pass: Uint8Array<ArrayBuffer>; detached: boolean } {
    const pass: number[] = [];
    for (const byte of data) {
      while (this.#matched > 0 && byte !== this.keys[this.#matched]) {
        // The longest shorter beginning of the sequence that the held bytes end with stays held.
        const keep = this.#shorterMatch();
        pass.push(...this.keys.slice(0, this.#matched - keep));
        this.#matched = keep;
      }
      if (byte === this.keys[this.#matched]) this.#matched += 1;
      else pass.push(byte);
      if (this.keys.length > 0 && this.#matched === this.keys.length) {
        return { pass: Uint8Array.from(pass), detached: true };
      }
    }
    return { pass: Uint8Array.from(pass), detached: false };
  }

  #shorterMatch(): number {
    for (let length = this.#matched - 1; length > 0; length--) {
      const end = this.keys.slice(this.#matched - length, this.#matched);
      if (end.every((byte, index) => byte === this.keys[index])) return length;
    }
    return 0;
  }
}
