import { apiError, connectApi } from "../api_client.ts";
import { exitCode } from "../exit.ts";
import { untilInterrupted } from "../interrupt.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";
import { requireId } from "../workload_id.ts";

/** `hypercore logs ID`: the bytes as the container wrote them; with `--json` one object a line. */
export async function logs(
  given: string | undefined,
  options: ClientOptions & { follow?: true; tail?: number; json?: true },
  io: Io,
): Promise<number> {
  const id = requireId(given);
  const api = connectApi(options, io);
  using interrupt = untilInterrupted(io);
  const lines = new LineSplitter();
  const print = (texts: string[]) =>
    io.out(texts.map((line) => `${JSON.stringify({ id, line })}\n`).join(""));
  try {
    const request = { id, follow: options.follow === true, tail: options.tail };
    for await (
      const { data } of api.workloads.streamLogs(request, { signal: interrupt.signal, timeoutMs: 0 })
    ) {
      if (options.json) await print(lines.push(data));
      else await io.out(data);
    }
    if (options.json) await print(lines.end());
  } catch (error) {
    if (interrupt.signal.aborted) return exitCode.interrupted;
    throw apiError(`Cannot read the log of "${id}"`, api, error);
  }
  return exitCode.ok;
}

/** A longer line is given out in pieces, UTF-16 units. */
export const MAX_LINE_LENGTH = 1_048_576;

/** Cuts a byte stream into lines; bytes that are no UTF-8 become U+FFFD. */
export class LineSplitter {
  readonly #decoder = new TextDecoder();
  #rest = "";

  push(data: Uint8Array): string[] {
    const parts = (this.#rest + this.#decoder.decode(data, { stream: true })).split("\n");
    this.#rest = parts.pop()!;
    if (this.#rest.length > MAX_LINE_LENGTH) {
      parts.push(this.#rest);
      this.#rest = "";
    }
    return parts;
  }

  /** The line that no line end closed, if there is one. */
  end(): string[] {
    const rest = this.#rest + this.#decoder.decode();
    this.#rest = "";
    return rest === "" ? [] : [rest];
  }
}
