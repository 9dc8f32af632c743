import { apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { CommandError, exitCode, UsageError } from "../exit.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";
import { printable } from "../parse/values.ts";

/** More than any event or query may carry. */
const MAX_PAYLOAD_BYTES = 64 * 1024;
/** What the answers of a query may take longer than its own time-out, ms. */
const QUERY_SLACK_MS = 10_000;
/** A query's time-out where none is given and the cluster decides; the call waits at most so long, ms. */
const QUERY_DEFAULT_MS = 120_000;

interface Message {
  name: string;
  payload: string | undefined;
}

/** `hypercore event NAME [PAYLOAD]`. */
export async function event(
  message: Message,
  options: ClientOptions & { json?: true; coalesce: boolean },
  io: Io,
): Promise<number> {
  const { name } = message;
  const payload = await payloadBytes(message, io);
  const api = connectApi(options, io);
  const request = { name, payload, coalesce: options.coalesce };
  await api.admin.sendEvent(request, { timeoutMs: CALL_TIMEOUT_MS }).catch((error) => {
    throw apiError(`Cannot send event "${name}"`, api, error);
  });
  await io.out(options.json ? `${JSON.stringify({ name })}\n` : `event "${printable(name)}" sent\n`);
  return exitCode.ok;
}

/** Options of `hypercore query`. */
export interface QueryOptions extends ClientOptions {
  json?: true;
  node?: string[];
  tag?: [string, string][];
  ack: boolean;
  relayFactor?: number;
  timeout?: number;
}

/** `hypercore query NAME [PAYLOAD]`: prints acknowledgements and answers as they come. */
export async function query(message: Message, options: QueryOptions, io: Io): Promise<number> {
  const { name } = message;
  const payload = await payloadBytes(message, io);
  const api = connectApi(options, io);
  const stream = api.admin.query({
    name,
    payload,
    nodes: options.node ?? [],
    tags: Object.fromEntries(options.tag ?? []),
    requestAck: options.ack,
    relayFactor: options.relayFactor ?? 0,
    timeoutMs: options.timeout ?? 0,
  }, { timeoutMs: (options.timeout ?? QUERY_DEFAULT_MS) + QUERY_SLACK_MS });
  const acks: string[] = [];
  const responses: { from: string; payload: string }[] = [];
  try {
    for await (const { event } of stream) {
      if (event.case === "ack") {
        acks.push(event.value);
        if (!options.json) await io.out(`ack from "${printable(event.value)}"\n`);
      } else if (event.case === "answer") {
        const text = new TextDecoder().decode(event.value.payload);
        responses.push({ from: event.value.from, payload: text });
        if (!options.json) await io.out(`answer from "${printable(event.value.from)}": ${printable(text)}\n`);
      }
    }
  } catch (error) {
    throw apiError(`Cannot ask "${name}"`, api, error);
  }
  await io.out(
    options.json
      ? `${JSON.stringify({ acks, responses }, null, 2)}\n`
      : `${acks.length} acknowledgements, ${responses.length} answers\n`,
  );
  return exitCode.ok;
}

async function payloadBytes({ payload }: Message, io: Io): Promise<Uint8Array<ArrayBuffer>> {
  if (payload === undefined) return new Uint8Array();
  if (payload !== "-") return new TextEncoder().encode(payload);
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of io.stdin()) {
    length += chunk.length;
    if (length > MAX_PAYLOAD_BYTES) throw new UsageError(`payload: at most ${MAX_PAYLOAD_BYTES} bytes`);
    chunks.push(chunk);
  }
  if (io.stdinIsTerminal && length === 0) throw new CommandError("Cannot read the payload: there is none");
  const all = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}
