import { createSerf, type Serf, type SerfOptions } from "../../gossip/mod.ts";

/** For members to answer; all of it is waited for a query, until all have for a key, milliseconds. */
const ANSWER_MS = 6_000;
const KEYS_MS = 30_000;

/** What a node is told on its command line: options of `createSerf`, keys as base64, and whom to join. */
export interface NodeOptions extends Omit<SerfOptions, "keys"> {
  keys?: string[];
  join?: string[];
}

/** What a node can be asked; each is one line of JSON on its standard input, answered by one line. */
export type NodeCommand =
  | { do: "join"; address: string }
  | { do: "members" }
  | { do: "keys" }
  | { do: "key"; operation: "install" | "use" | "remove"; key: string }
  | { do: "event"; name: string }
  | { do: "query"; name: string; relayFactor?: number }
  | { do: "tags"; tags: Record<string, string> }
  | { do: "leave" };

/** What a node knows of a member. */
export interface MemberView {
  status: string;
  address: string;
}

async function answer(serf: Serf, command: NodeCommand): Promise<unknown> {
  switch (command.do) {
    case "join":
      return await serf.join([command.address]);
    case "members":
      return Object.fromEntries(
        serf.members().map(({ name, status, host, port }) => [name, { status, address: `${host}:${port}` }]),
      );
    case "keys":
      return serf.keys()?.map((key) => key.toBase64());
    case "key": {
      const operate = {
        install: serf.installKey.bind(serf),
        use: serf.useKey.bind(serf),
        remove: serf.removeKey.bind(serf),
      }[command.operation];
      const { ok, missing, errors } = await operate(Uint8Array.fromBase64(command.key), {
        timeoutMs: KEYS_MS,
      });
      return { ok, missing, errors: [...errors] };
    }
    case "event":
      return serf.userEvent(command.name), null;
    case "query": {
      const { acks, responses } = await serf.query(command.name, {
        requestAck: true,
        relayFactor: command.relayFactor,
        timeoutMs: ANSWER_MS,
      });
      return {
        acks,
        responses: responses.map(({ from, payload }) => [from, new TextDecoder().decode(payload)]),
      };
    }
    case "tags":
      return serf.setTags(command.tags), null;
    case "leave":
      return await serf.leave(), null;
  }
}

/** Runs one of our nodes as a process of its own, until its standard input ends. It answers every query with its name. */
if (import.meta.main) {
  const { join, keys, ...options } = JSON.parse(Deno.args[0]) as NodeOptions;
  await using serf = await createSerf({
    profile: "lan",
    ...options,
    keys: keys?.map((key) => Uint8Array.fromBase64(key)),
  });
  serf.listen((event) => {
    if (event.kind === "query") serf.respond(event, `${serf.name} got ${event.name}`);
  });
  if (join) await serf.retryJoin(join, { firstPauseMs: 200, longestPauseMs: 2_000 });
  console.log(JSON.stringify(serf.local.port));
  let rest = "";
  for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      const reply = await answer(serf, JSON.parse(line)).then(
        (value) => ({ value: value ?? null }),
        (error) => ({ error: String(error) }),
      );
      console.log(JSON.stringify(reply));
    }
  }
}
