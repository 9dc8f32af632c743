/** The 16 bytes of a node id; nothing for what is no UUID. */
export function idBytes(nodeId: string): Uint8Array<ArrayBuffer> | undefined {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(nodeId)) return undefined;
  return Uint8Array.fromHex(nodeId.replaceAll("-", ""));
}

/** The node id that has these bytes; empty for any other number of them. */
export function idText(bytes: Uint8Array): string {
  if (bytes.length !== 16) return "";
  return bytes.toHex().replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
