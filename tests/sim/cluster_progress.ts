import type { ClusterWorld } from "./cluster_world.ts";

/** How often the wall clock is looked at, milliseconds of the world's time. */
const LOOK_MS = 100;
/** Pause between two lines, milliseconds of wall time. */
const LINE_MS = 10_000;
const MIB = 1 << 20;

/** What {@linkcode Progress} stands on. */
export interface ProgressOptions {
  /** Wall time, milliseconds. */
  nowMs: () => number;
  /** Memory of the process, bytes. */
  memory: () => { heapUsed: number; rss: number };
  write: (line: string) => void;
}

/** Tells how far a long life is: a line at the start of each phase, and one every ten seconds. It changes nothing about the life. */
export class Progress {
  readonly #options: ProgressOptions;
  readonly #startMs: number;
  #world: ClusterWorld | undefined;
  #phase = "";
  #lineMs: number;

  constructor(options: ProgressOptions) {
    this.#options = options;
    this.#startMs = this.#lineMs = options.nowMs();
  }

  /** A world is about to begin. */
  observe(world: ClusterWorld): void {
    this.#world = world;
    this.#look();
  }

  /** Another part of the life begins. */
  phase(name: string): void {
    this.#phase = name;
    this.#line();
  }

  #look(): void {
    const world = this.#world!;
    world.after(LOOK_MS, () => {
      if (this.#options.nowMs() - this.#lineMs >= LINE_MS) this.#line();
      this.#look();
    });
  }

  #line(): void {
    const { nowMs, memory, write } = this.#options;
    const { heapUsed, rss } = memory();
    this.#lineMs = nowMs();
    const virtualS = ((this.#world?.nowMs ?? 0) / 1_000).toFixed(1);
    const wallS = ((this.#lineMs - this.#startMs) / 1_000).toFixed(0);
    const [heap, whole] = [heapUsed, rss].map((bytes) => Math.round(bytes / MIB));
    write(`${virtualS} s, ${this.#phase}; wall time ${wallS} s, heap ${heap} MiB, process ${whole} MiB`);
  }
}
