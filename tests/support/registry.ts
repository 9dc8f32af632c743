import { blobsOf, type TestBlob, type TestImage, type TestIndex } from "./images.ts";

/** Time the registry may take to start, in milliseconds, on a machine that is busy with other tests. */
const START_TIMEOUT_MS = 60_000;

/** What a registry asks of its clients. */
export interface TestRegistryOptions {
  auth?: { user: string; password: string };
}

/**
 * Starts Debian's docker-registry on a free loopback port with a storage of its own; plain HTTP. Dispose ends it and
 * removes the storage.
 *
 * @example
 * ```ts ignore
 * await using registry = await startRegistry();
 * const reference = await registry.push(busyboxImage(), "test/web:1");
 * ```
 */
export async function startRegistry(options: TestRegistryOptions = {}): Promise<TestRegistry> {
  const dir = await Deno.makeTempDir({ prefix: "hc-reg-" });
  try {
    if (options.auth) await writePasswordFile(`${dir}/htpasswd`, options.auth);
    const auth = options.auth ? { auth: { htpasswd: { realm: "test", path: `${dir}/htpasswd` } } } : {};
    // YAML takes JSON.
    await Deno.writeTextFile(
      `${dir}/config.yml`,
      JSON.stringify({
        version: "0.1",
        log: { level: "info", accesslog: { disabled: true } },
        storage: { filesystem: { rootdirectory: `${dir}/data` }, delete: { enabled: true } },
        http: { addr: "127.0.0.1:0", secret: "test" },
        ...auth,
      }).replace('"0.1"', "0.1"),
    );
    const process = new Deno.Command("docker-registry", {
      args: ["serve", `${dir}/config.yml`],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    const log = new RegistryLog(process.stderr);
    try {
      return new TestRegistry(dir, await log.address, options, { process, log });
    } catch (error) {
      await end(process, log);
      throw error;
    }
  } catch (error) {
    await Deno.remove(dir, { recursive: true });
    throw error;
  }
}

/** A running docker-registry; see {@linkcode startRegistry}. */
export class TestRegistry implements AsyncDisposable {
  constructor(
    readonly dir: string,
    /** `127.0.0.1:port`, as a reference names it. */
    readonly host: string,
    readonly options: TestRegistryOptions,
    readonly parts: { process: Deno.ChildProcess; log: RegistryLog },
  ) {}

  /** Pushes an image or a whole index under `repository:tag`; gives the reference to pull it by. */
  async push(image: TestImage | TestIndex, name: string): Promise<string> {
    const colon = name.lastIndexOf(":");
    const [repository, tag] = [name.slice(0, colon), name.slice(colon + 1)];
    const images = image.kind === "index" ? image.images : [image];
    for (const one of images) {
      for (const blob of blobsOf(one)) {
        if (blob !== one.manifest) await this.#pushBlob(repository, blob);
      }
      await this.#pushManifest(repository, one.manifest, one.manifest.digest);
    }
    await this.#pushManifest(repository, image.manifest, tag);
    return `${this.host}/${name}`;
  }

  async #pushBlob(repository: string, blob: TestBlob): Promise<void> {
    const start = await this.#request("POST", `/v2/${repository}/blobs/uploads/`, 202);
    const location = new URL(start.headers.get("location")!, `http://${this.host}`);
    location.searchParams.set("digest", blob.digest);
    await this.#request("PUT", location.pathname + location.search, 201, blob.bytes);
  }

  async #pushManifest(repository: string, manifest: TestBlob, target: string): Promise<void> {
    await this.#request(
      "PUT",
      `/v2/${repository}/manifests/${target}`,
      201,
      manifest.bytes,
      manifest.mediaType,
    );
  }

  async #request(
    method: string,
    path: string,
    expected: number,
    body?: Uint8Array<ArrayBuffer>,
    type = "application/octet-stream",
  ): Promise<Response> {
    const { auth } = this.options;
    const response = await fetch(`http://${this.host}${path}`, {
      method,
      body,
      headers: {
        ...(body ? { "content-type": type } : {}),
        ...(auth ? { authorization: `Basic ${btoa(`${auth.user}:${auth.password}`)}` } : {}),
      },
    });
    const text = await response.text();
    if (response.status !== expected) {
      throw new Error(`Cannot ${method} "${path}": status ${response.status}: ${text}`);
    }
    return response;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await end(this.parts.process, this.parts.log);
    await Deno.remove(this.dir, { recursive: true });
  }
}

async function end(process: Deno.ChildProcess, log: RegistryLog): Promise<void> {
  try {
    process.kill("SIGKILL");
  } catch (error) {
    // It may have ended by itself.
    if (!(error instanceof TypeError || error instanceof Deno.errors.NotFound)) throw error;
  }
  await process.status;
  await log.ended;
}

/** Reads the registry's log to its end, so that it never waits for a reader, and finds its address in there. */
class RegistryLog {
  readonly address: Promise<string>;
  readonly ended: Promise<void>;

  constructor(stream: ReadableStream<Uint8Array>) {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    this.address = promise;
    this.ended = (async () => {
      const timer = setTimeout(
        () => reject(new Error(`Cannot start docker-registry: no address after ${START_TIMEOUT_MS} ms`)),
        START_TIMEOUT_MS,
      );
      let text = "";
      for await (const part of stream.pipeThrough(new TextDecoderStream())) {
        text = (text + part).slice(-4096);
        const address = /listening on (127\.0\.0\.1:\d+)\D/.exec(text);
        if (address) resolve(address[1]);
      }
      clearTimeout(timer);
      reject(new Error(`Cannot start docker-registry: ${text}`));
    })();
    // Whoever waits for the address sees its failure; after that nobody does.
    this.address.catch(() => undefined);
  }
}

/** docker-registry takes bcrypt only. */
async function writePasswordFile(file: string, auth: { user: string; password: string }): Promise<void> {
  const { stdout, success } = await new Deno.Command("htpasswd", {
    args: ["-Bbn", auth.user, auth.password],
    stderr: "null",
  }).output();
  if (!success) throw new Error("Cannot make a password file: htpasswd failed");
  await Deno.writeFile(file, stdout);
}
