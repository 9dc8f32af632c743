import { RuntimeError } from "../errors.ts";

/** Longest path a unix socket can be bound to on Linux (`sun_path`, less its NUL). */
export const MAX_SOCKET_PATH_BYTES = 107;

/** Where a containerd of our own keeps what it has. */
export interface ContainerdPaths {
  /** Images, snapshots, records: survives a reboot. */
  root: string;
  /** Bundles and shim state: of this boot. */
  state: string;
  /** gRPC socket; containerd also opens `<socket>.ttrpc` for its shims. */
  socket: string;
  /** Where containerd would install runtimes; it makes this directory at every start. */
  opt: string;
}

/**
 * The configuration file of a containerd that serves this program alone. Format version 2 is what 1.6 and 1.7 read;
 * 2.x migrates it. Kubernetes' CRI and the plug-ins that would write outside these paths (NRI) are off.
 */
export function containerdConfig(paths: ContainerdPaths): string {
  const bytes = new TextEncoder().encode(`${paths.socket}.ttrpc`).length;
  if (bytes > MAX_SOCKET_PATH_BYTES) {
    throw new RuntimeError(
      "invalid",
      `Cannot use containerd socket "${paths.socket}": its path may have ` +
        `${MAX_SOCKET_PATH_BYTES - ".ttrpc".length} bytes and has ${
          bytes - ".ttrpc".length
        }; choose a shorter data dir`,
    );
  }
  return `version = 2
root = ${JSON.stringify(paths.root)}
state = ${JSON.stringify(paths.state)}
disabled_plugins = [${DISABLED_PLUGINS.map((name) => JSON.stringify(name)).join(", ")}]

[grpc]
  address = ${JSON.stringify(paths.socket)}

[plugins."io.containerd.internal.v1.opt"]
  path = ${JSON.stringify(paths.opt)}
`;
}

/** Names that a version does not know are ignored by it. */
const DISABLED_PLUGINS = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.cri.v1.images",
  "io.containerd.cri.v1.runtime",
  "io.containerd.podsandbox.controller.v1.podsandbox",
  "io.containerd.grpc.v1.sandbox-controllers",
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.devmapper",
];
