import { RuntimeError } from "../errors.ts";

/** A response body as text; throws `invalid` past the bound, before more is read. */
export async function boundedText(response: Response, maxBytes: number): Promise<string> {
  return new TextDecoder().decode(await boundedBytes(response, maxBytes, "the answer"));
}

/** A response body; throws `invalid` past the bound, before more is read. */
export async function boundedBytes(response: Response, maxBytes: number, what: string): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body ?? []) {
    length += chunk.length;
    if (length > maxBytes) {
      throw new RuntimeError("invalid", `Cannot read ${what}: it is larger than ${maxBytes} bytes`);
    }
    chunks.push(chunk);
  }
  const bytes = new Uint8Array(length);
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.length;
  }
  return bytes;
}
