/**
 * Error text as the gRPC protocol wants it in `grpc-message`: percent-encoded UTF-8 where it is not printable ASCII, and
 * nowhere else, since clients that decode with `decodeURI` leave the encoded forms of `/`, `:` and `,` as they are.
 *
 * @example
 * ```ts
 * import { encodeGrpcMessage } from "./grpc_message.ts";
 * console.assert(encodeGrpcMessage("Cannot accept id \"../é%\"") === "Cannot accept id \"../%C3%A9%25\"");
 * ```
 */
export function encodeGrpcMessage(text: string): string {
  return text.replace(/[^\x20-\x24\x26-\x7e]+/gu, (part) => {
    return [...new TextEncoder().encode(part)].map((byte) =>
      `%${byte.toString(16).toUpperCase().padStart(2, "0")}`
    )
      .join("");
  });
}
