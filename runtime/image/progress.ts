import type { PullProgress } from "./mod.ts";

/** Least time between two reports of one blob, in milliseconds. */
const REPORT_INTERVAL_MS = 100;
const RATE_WINDOW_MS = 1_000;

/** Reports how far one blob is: every change of status, and bytes at most ten times a second. */
export class BlobProgress {
  #bytes = 0;
  #status: PullProgress["status"] = "waiting";
  #reportedAtMs = -Infinity;
  #windowStartMs: number;
  #windowBytes = 0;
  #rate = 0;

  constructor(
    readonly digest: string,
    readonly totalBytes: number,
    readonly options: { report?: (progress: PullProgress) => void; now: () => number },
  ) {
    this.#windowStartMs = options.now();
    this.#report();
  }

  /** The bytes that are there now; those of an earlier, interrupted pull do not count for the rate. */
  bytes(bytes: number, options: { isEarlier?: boolean } = {}): void {
    const nowMs = this.options.now();
    if (!options.isEarlier) this.#windowBytes += bytes - this.#bytes;
    this.#bytes = bytes;
    const elapsedMs = nowMs - this.#windowStartMs;
    if (elapsedMs >= RATE_WINDOW_MS) {
      this.#rate = Math.round(this.#windowBytes * 1000 / elapsedMs);
      this.#windowStartMs = nowMs;
      this.#windowBytes = 0;
    }
    if (nowMs - this.#reportedAtMs >= REPORT_INTERVAL_MS) this.#report();
  }

  status(status: PullProgress["status"]): void {
    if (status === this.#status) return;
    this.#status = status;
    if (status !== "waiting" && status !== "downloading") this.#bytes = this.totalBytes;
    this.#report();
  }

  #report(): void {
    this.#reportedAtMs = this.options.now();
    this.options.report?.({
      digest: this.digest,
      status: this.#status,
      bytes: this.#bytes,
      totalBytes: this.totalBytes,
      bytesPerSecond: this.#status === "downloading" ? this.#rate : 0,
    });
  }
}
