import { DecodeError } from "./error.ts";
import { concatBytes, NO_BYTES, utf8 } from "./text.ts";
import { MessageType } from "./types.ts";

/** The header that keeps clusters apart; empty for no label. Throws RangeError above 255 bytes. */
export function encodeLabelHeader(label: string): Uint8Array {
  if (label === "") return NO_BYTES;
  const bytes = utf8(label);
  if (bytes.length > 255) throw new RangeError(`Cannot use label "${label}": it has more than 255 bytes`);
  return concatBytes([new Uint8Array([MessageType.hasLabel, bytes.length]), bytes]);
}

/** Length of the label header that `bytes` begin with: 0 for none, undefined where they end inside it. */
export function labelHeaderLength(bytes: Uint8Array): number | undefined {
  if (bytes[0] !== MessageType.hasLabel) return 0;
  if (bytes.length < 2) return undefined;
  if (bytes[1] === 0) throw new DecodeError("label", "it is empty");
  return bytes.length < 2 + bytes[1] ? undefined : 2 + bytes[1];
}
