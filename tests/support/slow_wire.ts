/**
 * A cable that delays and loses packets, as a program: relays Ethernet frames between two interfaces of its network. For
 * kernels without netem. The frames are taken and given with their offload headers (virtio_net_hdr), so that checksums and
 * segments that are still to be made stay so.
 *
 *     deno run -A slow_wire.ts ONE OTHER '{"delayMs":40,"jitterMs":0,"lossPercent":2}'
 *
 * Prints "ready" when it relays, and ends when it is killed.
 */

/** What a cable does to each packet, in each direction. */
export interface WireOptions {
  delayMs: number;
  /** The delay is longer by up to this much, evenly spread; packets stay in order. */
  jitterMs?: number;
  lossPercent?: number;
}

const AF_PACKET = 17;
const SOCK_RAW = 3;
const ETH_P_ALL_BE = 0x0300;
const SOL_PACKET = 263;
const PACKET_VNET_HDR = 15;
const PACKET_IGNORE_OUTGOING = 23;
const MSG_DONTWAIT = 0x40;
const POLLIN = 1;
/** The longest segment that a driver hands over in one, and its headers. */
const MAX_FRAME_BYTES = 70_000;
/** Frames on their way in one direction; a real cable has a queue that ends as well. */
const MAX_IN_FLIGHT = 4_096;
const MAX_WAIT_MS = 1_000;

interface Flight {
  dueMs: number;
  frame: Uint8Array<ArrayBuffer>;
}

function relay(names: readonly [string, string], options: WireOptions): never {
  const { symbols: libc } = Deno.dlopen("libc.so.6", {
    socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
    bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
    setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
    if_nametoindex: { parameters: ["buffer"], result: "u32" },
    recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "isize" },
    send: { parameters: ["i32", "buffer", "usize", "i32"], result: "isize" },
    poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
  });
  const { delayMs, jitterMs = 0, lossPercent = 0 } = options;

  function open(name: string): number {
    const index = libc.if_nametoindex(new TextEncoder().encode(`${name}\0`));
    if (index === 0) throw new Error(`Cannot open interface "${name}": there is none`);
    // With no protocol yet, so that nothing comes in before all is set.
    const socket = libc.socket(AF_PACKET, SOCK_RAW, 0);
    const one = new Uint8Array([1, 0, 0, 0]);
    for (const option of [PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING]) {
      if (libc.setsockopt(socket, SOL_PACKET, option, one, one.length) !== 0) {
        throw new Error(`Cannot open interface "${name}": packet option ${option} is refused`);
      }
    }
    const address = new DataView(new ArrayBuffer(20));
    address.setUint16(0, AF_PACKET, true);
    address.setUint16(2, ETH_P_ALL_BE, true);
    address.setInt32(4, index, true);
    if (libc.bind(socket, address.buffer, address.byteLength) !== 0) {
      throw new Error(`Cannot open interface "${name}": it cannot be bound to`);
    }
    return socket;
  }

  const sockets = names.map(open);
  const polled = new DataView(new ArrayBuffer(16));
  for (const [i, socket] of sockets.entries()) {
    polled.setInt32(8 * i, socket, true);
    polled.setInt16(8 * i + 4, POLLIN, true);
  }
  const flights: Flight[][] = [[], []];
  const buffer = new Uint8Array(MAX_FRAME_BYTES);
  console.log("ready");
  for (;;) {
    const nextMs = Math.min(...flights.map(([first]) => first?.dueMs ?? Infinity));
    const waitMs = Math.max(0, Math.min(MAX_WAIT_MS, Math.ceil(nextMs - performance.now())));
    libc.poll(polled.buffer, 2n, waitMs);
    const nowMs = performance.now();
    for (const [i, socket] of sockets.entries()) {
      for (;;) {
        const length = Number(libc.recv(socket, buffer, BigInt(buffer.length), MSG_DONTWAIT));
        if (length <= 0) break;
        if (Math.random() * 100 < lossPercent || flights[i].length >= MAX_IN_FLIGHT) continue;
        const lastMs = flights[i].at(-1)?.dueMs ?? 0;
        const dueMs = Math.max(lastMs, nowMs + delayMs + Math.random() * jitterMs);
        flights[i].push({ dueMs, frame: buffer.slice(0, length) });
      }
      while (flights[i].length > 0 && flights[i][0].dueMs <= performance.now()) {
        const { frame } = flights[i].shift()!;
        libc.send(sockets[1 - i], frame, BigInt(frame.length), MSG_DONTWAIT);
      }
    }
  }
}

if (import.meta.main) {
  const [one, other, options] = Deno.args;
  relay([one, other], JSON.parse(options));
}
