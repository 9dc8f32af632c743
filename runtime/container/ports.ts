import type { RuntimeCatalog } from "../catalog/mod.ts";
import type { PullProgress } from "../image/mod.ts";
import type { ContainerIo } from "../io/mod.ts";
import type { Network } from "../network/mod.ts";
import type { HostSpecBuilder } from "../oci/mod.ts";

/** The parts an engine is made of, as narrow as it uses them; `runtime/mod.ts` puts the real ones in. */
export interface EngineParts {
  images: Images;
  network: EngineNetwork;
  specs: SpecBuilder;
  runtimes: Runtimes;
  io: Io;
}

/** An image that is present and unpacked. */
export interface UnpackedImage {
  /** Canonical name. */
  name: string;
  digest: string;
  /** The committed snapshot that containers start from. */
  chainId: string;
  /** The image's own settings, as the image config's `config` has them. */
  config: ImageConfig;
}

/** What of an image's configuration matters to a container; the spelling is the image specification's. */
export interface ImageConfig {
  readonly User?: string;
  readonly Env?: readonly string[] | null;
  readonly Entrypoint?: readonly string[] | null;
  readonly Cmd?: readonly string[] | null;
  readonly WorkingDir?: string;
  readonly StopSignal?: string;
}

/** Images by reference. */
export interface Images {
  /** Makes the image present and unpacked; pulls it when it is not. */
  ensure(
    reference: string,
    options: { signal?: AbortSignal; onProgress?: (progress: PullProgress) => void },
  ): Promise<UnpackedImage>;
}

/** Guest networks, as far as an engine uses them. */
export type EngineNetwork = Pick<Network, "ensureHost" | "attach" | "setRules" | "detach" | "collectGarbage">;

/** Makes OCI runtime specs, and the files that these mount into the container. */
export type SpecBuilder = Pick<HostSpecBuilder, "build" | "refresh" | "release" | "collectGarbage">;

/** The runtimes by name; what each needs is checked. */
export type Runtimes = Pick<RuntimeCatalog, "resolve" | "working">;

/** Streams: logs, exec, attach. */
export type Io = Pick<
  ContainerIo,
  "logPath" | "prepare" | "logs" | "hasLog" | "exec" | "attach" | "release" | "collectGarbage"
>;
