import type { KeyPair } from "./worker_messages.ts";

export interface CertificateOptions {
  certFile: string;
  keyFile: string;
  pollMs: number;
  /** A good new pair has been read. */
  onChange(pair: KeyPair): void;
  /** The files on disk are unusable; the last good pair stays. Called once per content. */
  onRefused(reason: Error): void;
}

/**
 * The certificate of the proxy, read again when the files change. Polled rather than watched: that sees renamed files,
 * swapped symbolic links and mounts alike.
 */
export class CertificateFiles implements Disposable {
  #pair: KeyPair;
  #seen: string;
  #timer?: ReturnType<typeof setInterval>;
  #isReading = false;

  private constructor(private readonly options: CertificateOptions, pair: KeyPair) {
    this.#pair = pair;
    this.#seen = pair.cert + pair.key;
    this.#timer = setInterval(() => this.#poll(), options.pollMs);
  }

  /** Reads and checks the files. Throws an Error that names them. */
  static async open(options: CertificateOptions): Promise<CertificateFiles> {
    const pair = await read(options);
    check(pair, options);
    return new CertificateFiles(options, pair);
  }

  get pair(): KeyPair {
    return this.#pair;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  async #poll(): Promise<void> {
    // Where reading takes longer than the pause, an older look must not end after a newer one.
    if (this.#isReading) return;
    this.#isReading = true;
    try {
      const pair = await read(this.options);
      if (this.#timer === undefined || pair.cert + pair.key === this.#seen) return;
      this.#seen = pair.cert + pair.key;
      check(pair, this.options);
      this.#pair = pair;
      this.options.onChange(pair);
    } catch (error) {
      if (this.#timer === undefined) return;
      const reason = error as Error;
      if (!(reason.cause instanceof Deno.errors.NotFound) || this.#seen !== "") {
        this.options.onRefused(reason);
      }
      if (reason.cause instanceof Deno.errors.NotFound) this.#seen = "";
    } finally {
      this.#isReading = false;
    }
  }
}

async function read({ certFile, keyFile }: CertificateOptions): Promise<KeyPair> {
  const text = async (file: string) => {
    try {
      return await Deno.readTextFile(file);
    } catch (cause) {
      throw new Error(`Cannot read the proxy certificate "${file}": ${(cause as Error).message}`, { cause });
    }
  };
  return { cert: await text(certFile), key: await text(keyFile) };
}

/** A listener that never accepts anything finds out whether certificate and key parse and belong together. */
function check(pair: KeyPair, { certFile }: CertificateOptions): void {
  try {
    Deno.listenTls({ hostname: "127.0.0.1", port: 0, ...pair }).close();
  } catch (cause) {
    throw new Error(`Cannot use the proxy certificate "${certFile}": ${(cause as Error).message}`, { cause });
  }
}
