/** How long one waits for a change that was not noticed, in milliseconds: inotify may drop events. */
const MISSED_CHANGE_MS = 1_000;

/** How often one looks when inotify cannot be had, in milliseconds. */
const POLL_MS = 100;

/** Someone's interest in a file's changes. */
export interface Subscription extends Disposable {
  /** Grows with every change; read it before looking at the file. */
  readonly version: number;
  /** Resolves once `version` is above `seen`, on abort, or after a while for nothing. */
  next(seen: number, signal?: AbortSignal): Promise<void>;
}

/**
 * Tells any number of readers that one file has changed, by one inotify watch that exists only while somebody is
 * interested. Where none can be had (the user's limit is reached) readers look by themselves now and then.
 */
export class FileChanges {
  readonly #path: string;
  readonly #waiters = new Set<() => void>();
  #subscribers = 0;
  #version = 0;
  #watcher: Deno.FsWatcher | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** Readers that are interested now. */
  get subscribers(): number {
    return this.#subscribers;
  }

  /** Starts to watch; what happens from now on is noticed. */
  subscribe(): Subscription {
    if (this.#subscribers++ === 0) this.#open();
    let active = true;
    const version = () => this.#version;
    return {
      get version() {
        return version();
      },
      next: (seen, signal) => this.#next(seen, signal),
      [Symbol.dispose]: () => {
        if (!active) return;
        active = false;
        if (--this.#subscribers === 0) this.#close();
      },
    };
  }

  /** Wakes everybody. */
  notify(): void {
    this.#version++;
    for (const wake of [...this.#waiters]) wake();
  }

  #next(seen: number, signal?: AbortSignal): Promise<void> {
    if (this.#version > seen || signal?.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", wake);
        this.#waiters.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, this.#watcher ? MISSED_CHANGE_MS : POLL_MS);
      signal?.addEventListener("abort", wake, { once: true });
      this.#waiters.add(wake);
    });
  }

  #open(): void {
    try {
      this.#watcher = Deno.watchFs(this.#path, { recursive: false });
    } catch {
      // No inotify instance left, or no file (yet): #next polls.
      this.#watcher = undefined;
      return;
    }
    void this.#pump(this.#watcher);
  }

  async #pump(watcher: Deno.FsWatcher): Promise<void> {
    try {
      for await (const _ of watcher) this.notify();
    } catch {
      // A watch that broke is as good as none: #next polls.
      if (this.#watcher === watcher) this.#watcher = undefined;
    }
  }

  #close(): void {
    const watcher = this.#watcher;
    this.#watcher = undefined;
    watcher?.close();
  }
}
