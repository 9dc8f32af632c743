/**
 * Containers on one node: containerd, images, networks, streams, put together.
 *
 * @module
 */
import { RuntimeCatalog, searchPath } from "./catalog/mod.ts";
import type { EngineContext } from "./container/context.ts";
import { ContainerdEngine } from "./container/engine.ts";
import type { Images } from "./container/ports.ts";
import { ContainerdClient, type ContainerdInfo, ContainerdSupervisor } from "./containerd/mod.ts";
import type { ContainerEngine } from "./engine.ts";
import { ContainerIo, type LogLimits, resolveContainerUser } from "./io/mod.ts";
import { ImageStore, type ImageStoreOptions } from "./image/mod.ts";
import type { Log } from "./log.ts";
import { GuestNetworks, type GuestNetworksOptions } from "./network/mod.ts";
import { HostSpecBuilder, Xattr } from "./oci/mod.ts";

/** What a node's runtime is told. */
export interface RuntimeOptions<I extends Images & AsyncDisposable> {
  /** Images, logs, records of networks, a private containerd: what survives a reboot. Absolute. */
  dataDir: string;
  /** What does not. Absolute. */
  stateDir: string;
  /** The containerd to use if one answers here; else a private one is started. */
  containerdSocket: string;
  containerdNamespace: string;
  /** containerd's program; the one on the PATH by default. */
  containerdBinary?: string;
  /** Folders with CNI plugins. */
  cniPath: readonly string[];
  /** Guest subnet, IPv4 CIDR. */
  subnet: string;
  logLimits: LogLimits;
  log: Log;
  /** Makes the image store, on the containerd that was found; see {@linkcode imageStore}. Disposed with the runtime. */
  openImages: (parts: ImageStoreParts) => I | Promise<I>;
  /** Folders programs are looked for in. */
  path?: string;
  /** How the host's network is reached; for tests. */
  network?: Pick<GuestNetworksOptions, "run" | "writeSysctl">;
  /** See {@linkcode EngineContext}; for tests. */
  observe?: EngineContext["observe"];
}

/** What an image store works with. */
export interface ImageStoreParts {
  client: ContainerdClient;
  snapshotter: string;
  signal?: AbortSignal;
}

/** A node's runtime; dispose ends it, containers run on. */
export interface Runtime<I extends Images & AsyncDisposable> extends AsyncDisposable {
  readonly engine: ContainerEngine;
  readonly images: I;
  readonly networks: GuestNetworks;
  readonly io: ContainerIo;
  readonly containerd: ContainerdInfo;
}

/**
 * Finds or starts containerd and puts a {@linkcode ContainerEngine} on it; takes over what an earlier agent left.
 * Garbage is not collected: that is for the caller to begin, who knows when there is time. Throws RuntimeError.
 */
export async function openRuntime<I extends Images & AsyncDisposable>(
  options: RuntimeOptions<I>,
  signal?: AbortSignal,
): Promise<Runtime<I>> {
  const { dataDir, stateDir, containerdNamespace, log } = options;
  await using stack = new AsyncDisposableStack();
  const folders = searchPath(options.path ?? Deno.env.get("PATH"));
  const supervisor = stack.use(
    new ContainerdSupervisor({
      socket: options.containerdSocket,
      namespace: containerdNamespace,
      dataDir,
      stateDir,
      binary: options.containerdBinary,
      path: folders.join(":"),
      log,
    }),
  );
  const xattr = stack.use(new Xattr());
  const containerd = await supervisor.start(signal);
  const { socket, snapshotter } = containerd;
  const client = stack.use(new ContainerdClient({ socket, namespace: containerdNamespace }));
  const images = stack.use(await options.openImages({ client, snapshotter, signal }));
  const networks = new GuestNetworks({
    dataDir,
    subnet: options.subnet,
    cniPath: options.cniPath,
    log,
    ...options.network,
  });
  await networks.ensureHost(signal);
  const io = stack.use(
    new ContainerIo({
      client,
      logDir: `${dataDir}/logs`,
      endedLogDir: `${dataDir}/ended-logs`,
      stateDir: `${stateDir}/io`,
      limits: options.logLimits,
      resolveUser: (id, user, userSignal) =>
        resolveContainerUser(client, id, { user, xattr, signal: userSignal }),
      log,
    }),
  );
  await io.start();
  const runtimeStateRoot = `${stateDir}/runtimes`;
  const engine = stack.use(
    new ContainerdEngine({
      client,
      snapshotter,
      runtimeStateRoot,
      images,
      network: networks,
      // Wrappers are run, and what is in the spec must be there after a reboot: so not in the state dir.
      runtimes: new RuntimeCatalog({
        dir: `${dataDir}/runtimes`,
        stateRoot: runtimeStateRoot,
        searchPath: folders,
      }),
      specs: new HostSpecBuilder({ dir: `${dataDir}/containers`, containerdNamespace, xattr }),
      io,
      log,
      isPrivate: containerd.isPrivate,
      observe: options.observe,
    }),
  );
  await io.adopt((await engine.list()).map((container) => container.id));
  const owned = stack.move();
  return { engine, images, networks, io, containerd, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** For {@linkcode RuntimeOptions.openImages}: images from registries and archives. */
export function imageStore(
  options: Omit<ImageStoreOptions, "client" | "snapshotter">,
): (parts: ImageStoreParts) => Promise<ImageStore> {
  return async ({ client, snapshotter, signal }) => {
    const store = new ImageStore({ ...options, client, snapshotter });
    try {
      await store.start(signal);
    } catch (error) {
      await store[Symbol.asyncDispose]();
      throw error;
    }
    return store;
  };
}
