/** Byte classes of HTTP/1.1 messages (RFC 9110 §5.6, RFC 9112). */

export const CR = 13;
export const LF = 10;
export const SPACE = 32;
export const TAB = 9;
export const COLON = 58;
export const COMMA = 44;

/** 1 for the characters of a token (RFC 9110 §5.6.2). */
export const TOKEN: Readonly<Uint8Array> = table((code) =>
  (code >= 48 && code <= 57) || (code >= 65 && code <= 90) || (code >= 97 && code <= 122) ||
  "!#$%&'*+-.^_`|~".includes(String.fromCharCode(code))
);

/** 1 for what may stand in a field value: HTAB, SP, visible ASCII, obs-text (RFC 9110 §5.5). */
export const FIELD_VALUE: Readonly<Uint8Array> = table((code) =>
  code === TAB || (code >= 32 && code !== 127)
);

/** 1 for what may stand in a request target: visible ASCII but `"`, `<`, `>`, and raw UTF-8 as browsers send it. */
export const TARGET: Readonly<Uint8Array> = table((code) =>
  code > 32 && code !== 127 && code !== 34 && code !== 60 && code !== 62
);

/** 1 for the characters of a reg-name, an IP literal or a port in a Host field (RFC 3986 §3.2.2, no userinfo). */
export const AUTHORITY: Readonly<Uint8Array> = table((code) =>
  (code >= 48 && code <= 57) || (code >= 65 && code <= 90) || (code >= 97 && code <= 122) ||
  "-._~:[]!$&'()*+;=%".includes(String.fromCharCode(code))
);

/** Whether `buffer[start, end)` is `word`, ignoring ASCII case; `word` is lower-case ASCII. */
export function equalsIgnoreCase(buffer: Uint8Array, start: number, end: number, word: string): boolean {
  if (end - start !== word.length) return false;
  for (let i = 0; i < word.length; i++) {
    const code = buffer[start + i];
    if ((code >= 65 && code <= 90 ? code | 32 : code) !== word.charCodeAt(i)) return false;
  }
  return true;
}

/** Decodes bytes as Latin-1, lower-casing ASCII letters when asked. */
export function latin1(buffer: Uint8Array, start: number, end: number, lowerCase = false): string {
  let text = "";
  for (let i = start; i < end; i++) {
    const code = buffer[i];
    text += String.fromCharCode(lowerCase && code >= 65 && code <= 90 ? code | 32 : code);
  }
  return text;
}

/** Writes Latin-1 text at `offset`; returns the offset behind it. */
export function putText(buffer: Uint8Array, offset: number, text: string): number {
  for (let i = 0; i < text.length; i++) buffer[offset + i] = text.charCodeAt(i);
  return offset + text.length;
}

/** Latin-1 text as bytes. */
export function latin1Bytes(text: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(text.length);
  putText(bytes, 0, text);
  return bytes;
}

/** Copies `from[start, end)` to `to` at `offset`; returns the offset behind it. */
export function putBytes(
  to: Uint8Array,
  offset: number,
  from: Uint8Array,
  start: number,
  end: number,
): number {
  if (end - start > 64) to.set(from.subarray(start, end), offset);
  else for (let i = start, o = offset; i < end; i++, o++) to[o] = from[i];
  return offset + end - start;
}

/** The message with `piece` in place of `old`, which stands at `at`. */
export function splice(message: Uint8Array, at: number, old: Uint8Array, piece: Uint8Array): Uint8Array {
  const spliced = new Uint8Array(message.length - old.length + piece.length);
  spliced.set(message.subarray(0, at));
  spliced.set(piece, at);
  spliced.set(message.subarray(at + old.length), at + piece.length);
  return spliced;
}

function table(member: (code: number) => boolean): Uint8Array {
  return Uint8Array.from({ length: 256 }, (_, code) => member(code) ? 1 : 0);
}
