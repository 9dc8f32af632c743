import { encodePingPayload } from "../../gossip/codec/coordinate.ts";
import { decodeIndirectPing, decodePing, encodeAck, encodePing } from "../../gossip/codec/messages.ts";
import { MsgpackReader } from "../../gossip/codec/msgpack_reader.ts";
import { PacketCodec } from "../../gossip/codec/packet.ts";
import { encodePushPull } from "../../gossip/codec/push_pull.ts";
import { emptySerfPushPull, encodeSerfPushPull } from "../../gossip/codec/serf_push_pull.ts";
import { StreamCodec } from "../../gossip/codec/stream.ts";
import { encodeTags } from "../../gossip/codec/tags.ts";
import { MessageType, NodeState, type Ping } from "../../gossip/codec/types.ts";
import { Endpoint } from "../../gossip/endpoint.ts";
import type { Profile } from "../../gossip/memberlist/config.ts";
import { createSerf } from "../../gossip/mod.ts";
import { SocketTransport } from "../../gossip/net/socket_transport.ts";
import { exchange, readMessage, writeAll } from "../../gossip/net/stream_driver.ts";
import type { ByteStream } from "../../gossip/net/transport.ts";
import { seededRandom } from "../../gossip/random.ts";
import { freshCoordinate } from "../../gossip/serf/coordinates.ts";

/**
 * What one agent of a large cluster costs: a process of its own with the driver and the sockets that ship, and in this one
 * peers that answer and probe it as so many agents would, each at an address of its own in 127/8.
 * `deno run -A tests/bench/gossip_agent.ts [--members=1000] [--seconds=120] [--profile=lan]` prints one JSON object.
 */
const AGENT = "agent";
const ENCODER = new TextEncoder();

/** The peers: one socket that is all of them. */
class Peers implements AsyncDisposable {
  readonly #transport = SocketTransport.bind({ host: "0.0.0.0", port: 0 });
  readonly #random = seededRandom(1);
  readonly #packets = new PacketCodec({ random: this.#random });
  readonly #streams = new StreamCodec({ random: this.#random });
  readonly #reader = new MsgpackReader();
  readonly #state: Uint8Array;
  readonly #ack = encodePingPayload(freshCoordinate());
  #seqNo = 0;
  probed = 0;
  exchanged = 0;

  constructor(readonly count: number) {
    const nodes = Array.from({ length: count }, (_, i) => ({
      node: `peer-${i}`,
      ...this.#place(i),
      meta: encodeTags(new Map([["role", "worker"]])),
      vsn: new Uint8Array([1, 5, 2, 2, 5, 4]),
      incarnation: 1,
      state: NodeState.alive,
    }));
    const userState = encodeSerfPushPull({
      ...emptySerfPushPull(),
      ltime: 10,
      statusLTimes: nodes.map(({ node }) => [node, 5]),
    });
    this.#state = encodePushPull({ join: true, nodes, userState });
  }

  get port(): number {
    return this.#transport.local.port;
  }

  #place(i: number): { addr: Uint8Array; port: number } {
    return { addr: new Uint8Array([127, 1 + (i >> 14), (i >> 7) & 127, 1 + (i & 127)]), port: this.port };
  }

  start(): void {
    this.#transport.start({
      packet: (from, packet) =>
        this.#packets.open(packet, (bytes, start, end) => this.#take(from, bytes, start, end)),
      stream: (stream) => void this.#answer(stream),
    });
  }

  #take(from: Endpoint, bytes: Uint8Array, start: number, end: number): void {
    const reader = this.#reader.reset(bytes, start + 1, end);
    let ping: Ping;
    if (bytes[start] === MessageType.ping) ping = decodePing(reader);
    else if (bytes[start] === MessageType.indirectPing) ping = decodeIndirectPing(reader);
    else return;
    this.probed++;
    this.#transport.send(from, encodeAck({ seqNo: ping.seqNo, payload: this.#ack }));
  }

  async #answer(stream: ByteStream): Promise<void> {
    try {
      await readMessage(stream, this.#streams.reader({ accepted: true }));
      await writeAll(stream, this.#streams.seal(this.#state, { dialing: false }));
      this.exchanged++;
    } finally {
      stream.close();
    }
  }

  /** One of the peers probes the agent. */
  probe(agent: Endpoint): void {
    const i = this.#random.int(this.count);
    const { addr, port } = this.#place(i);
    const ping = encodePing({
      seqNo: ++this.#seqNo,
      node: AGENT,
      sourceAddr: addr,
      sourcePort: port,
      sourceNode: `peer-${i}`,
    });
    this.#transport.send(agent, this.#packets.seal([ping]));
  }

  /** One of the peers exchanges its state with the agent. */
  async exchange(agent: Endpoint): Promise<void> {
    const request = this.#streams.seal(this.#state, { dialing: true });
    const reader = this.#streams.reader({ accepted: false });
    await exchange(this.#transport, agent, { request, reader, signal: AbortSignal.timeout(10_000) });
    this.exchanged++;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transport[Symbol.asyncDispose]();
  }
}

/** The process that is measured: does what it is told by lines on its standard input. */
async function agent(profile: Profile): Promise<void> {
  const { gc } = globalThis as { gc?: () => void };
  await using serf = await createSerf({ name: AGENT, bind: { host: "127.0.0.1", port: 0 }, profile });
  const tell = (what: unknown) => console.log(JSON.stringify(what));
  tell({ port: serf.local.port });
  for await (const line of lines(Deno.stdin.readable)) {
    const [command, argument] = line.split(" ");
    if (command === "join") tell(await serf.join([argument]));
    else if (command === "measure") {
      for (let i = 0; i < 5; i++) gc?.();
      const { heapUsed, external } = Deno.memoryUsage();
      const [user, system] = (await Deno.readTextFile("/proc/self/stat")).split(") ")[1].split(" ").slice(
        11,
        13,
      );
      tell({
        heap: heapUsed + external,
        cpuMs: (Number(user) + Number(system)) * 10,
        members: serf.aliveCount,
      });
    }
  }
}

async function* lines(from: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (
    const text of from.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)
  ) {
    const parts = (rest + text).split("\n");
    rest = parts.pop()!;
    yield* parts;
  }
}

interface Measured {
  heap: number;
  cpuMs: number;
  members: number;
}

async function bench(options: { members: number; seconds: number; profile: Profile }): Promise<void> {
  const { members, seconds, profile } = options;
  await using peers = new Peers(members - 1);
  peers.start();
  await using child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "--v8-flags=--expose-gc", import.meta.url, AGENT, profile],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const input = child.stdin.getWriter();
  const output = lines(child.stdout);
  const ask = async <T>(command?: string): Promise<T> => {
    if (command !== undefined) await input.write(ENCODER.encode(`${command}\n`));
    return JSON.parse((await output.next()).value!);
  };
  const { port } = await ask<{ port: number }>();
  const endpoint = new Endpoint(new Uint8Array([127, 0, 0, 1]), port);
  const alone = await ask<Measured>("measure");
  await ask(`join 127.0.0.1:${peers.port}`);
  await pause(5_000);
  const joined = await ask<Measured>("measure");
  // Every peer probes one member a second, so that each member is probed once a second; and within half of the interval of
  // push/pulls one peer comes for one.
  const probing = setInterval(() => peers.probe(endpoint), profile === "hypercore" ? 5_000 : 1_000);
  const probed = peers.probed;
  const idle = await ask<Measured>("measure");
  await pause(seconds * 500);
  await peers.exchange(endpoint);
  await pause(seconds * 500);
  const end = await ask<Measured>("measure");
  clearInterval(probing);
  await input.close();
  console.log(JSON.stringify({
    bench: "agent",
    profile,
    members: joined.members,
    heapBytesPerMember: Math.round((joined.heap - alone.heap) / (members - 1)),
    heapBytesPerMemberLater: Math.round((end.heap - alone.heap) / (members - 1)),
    seconds,
    cpuPercent: Number(((end.cpuMs - idle.cpuMs) / seconds / 10).toFixed(2)),
    probesBegun: peers.probed - probed,
    exchanges: peers.exchanged,
    membersAtTheEnd: end.members,
  }));
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function value(name: string): string | undefined {
  const prefix = `--${name}=`;
  return Deno.args.find((arg) => arg.startsWith(prefix))?.slice(prefix.length);
}

if (Deno.args[0] === AGENT) await agent(Deno.args[1] as Profile);
else {
  await bench({
    members: Number(value("members") ?? 1_000),
    seconds: Number(value("seconds") ?? 120),
    profile: (value("profile") ?? "lan") as Profile,
  });
}
