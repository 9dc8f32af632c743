import type net from "node:net";
import { parseAddress } from "../../gossip/endpoint.ts";

/** One end of a connection, in `/proc/net/tcp`: the address in words of the machine, then the port. */
const MAPPED = "0000000000000000FFFF0000";

/** Bytes that the kernel holds of what was written to a connection; undefined where it does not tell. */
export type SendQueues = (socket: net.Socket) => number | undefined;

/**
 * What the kernel holds of every TCP connection until its peer acknowledges it. It is asked as Deno tells of a write only when
 * the whole of it has left: of one of some mebibytes, and a slow reader, nothing for minutes. Never throws; where the kernel
 * has nothing to say, nothing is known.
 */
export async function readSendQueues(): Promise<SendQueues> {
  const queues = new Map<string, number>();
  for (const file of ["/proc/self/net/tcp", "/proc/self/net/tcp6"]) {
    const text = await Deno.readTextFile(file).catch(() => ""); // no such kernel, or no IPv6
    for (const [, local, remote, bytes] of text.matchAll(/: (\w+:\w+) (\w+:\w+) \w\w (\w{8}):/g)) {
      queues.set(`${local.replace(MAPPED, "")} ${remote.replace(MAPPED, "")}`, parseInt(bytes, 16));
    }
  }
  return ({ localAddress, localPort, remoteAddress, remotePort }) =>
    queues.get(`${end(localAddress, localPort)} ${end(remoteAddress, remotePort)}`);
}

function end(address = "", port = 0): string {
  const bytes = parseAddress(address.replace(/%.*$/, "")) ?? new Uint8Array();
  const words = Array.from({ length: bytes.length / 4 }, (_, n) => [...bytes.subarray(4 * n, 4 * n + 4)]);
  const text = words.map((word) => word.reverse().map((byte) => hex(byte, 2)).join("")).join("");
  return `${text.replace(MAPPED, "")}:${hex(port, 4)}`;
}

function hex(value: number, digits: number): string {
  return value.toString(16).toUpperCase().padStart(digits, "0");
}
