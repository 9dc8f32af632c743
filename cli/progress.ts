import type { PullProgress } from "../proto/gen/hypercore/v1/image_pb.ts";
import type { Io } from "./io.ts";
import { printable } from "./parse/values.ts";
import { formatBytes } from "./table.ts";

/** Layers shown at a time; more are counted in a last line. */
export const MAX_LAYERS_SHOWN = 40;

/** Shows how a pull goes on a terminal at standard error, one line a layer, rewritten in place; silent elsewhere. */
export class ProgressView {
  readonly #layers = new Map<string, PullProgress>();
  #step = "";
  #linesDrawn = 0;

  constructor(readonly io: Pick<Io, "err" | "stderrIsTerminal" | "windowSize">) {}

  async update(progress: PullProgress): Promise<void> {
    this.#layers.set(progress.digest, progress);
    await this.#draw();
  }

  async step(step: string): Promise<void> {
    this.#step = step;
    await this.#draw();
  }

  /** Wipes what was drawn, so that the result stands alone. */
  async clear(): Promise<void> {
    if (this.#linesDrawn > 0) await this.io.err(`\x1b[${this.#linesDrawn}A\x1b[J`);
    this.#linesDrawn = 0;
  }

  async #draw(): Promise<void> {
    if (!this.io.stderrIsTerminal) return;
    const columns = this.io.windowSize()?.columns ?? 80;
    const lines = progressLines([...this.#layers.values()], this.#step).map((line) =>
      line.slice(0, columns - 1)
    );
    const up = this.#linesDrawn > 0 ? `\x1b[${this.#linesDrawn}A` : "";
    this.#linesDrawn = lines.length;
    await this.io.err(`${up}\x1b[J${lines.join("\n")}\n`);
  }
}

/** The lines that describe a pull. */
export function progressLines(layers: readonly PullProgress[], step: string): string[] {
  const lines = layers.slice(0, MAX_LAYERS_SHOWN).map((layer) => {
    const id = printable(layer.digest).replace(/^sha256:/, "").slice(0, 12);
    if (layer.status !== "downloading") return `${id}  ${printable(layer.status)}`;
    const total = layer.totalBytes > 0n ? ` / ${formatBytes(Number(layer.totalBytes))}` : "";
    const rate = layer.bytesPerSecond > 0n ? `  ${formatBytes(Number(layer.bytesPerSecond))}/s` : "";
    return `${id}  downloading ${formatBytes(Number(layer.bytes))}${total}${rate}`;
  });
  if (layers.length > MAX_LAYERS_SHOWN) lines.push(`… and ${layers.length - MAX_LAYERS_SHOWN} more layers`);
  if (step !== "") lines.push(printable(step));
  return lines;
}
