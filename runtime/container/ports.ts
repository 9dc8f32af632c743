import type { Any } from "@bufbuild/protobuf/wkt";
import type { Mount } from "../../proto/gen/containerd/types/types_pb.ts";
import type { RuntimeSelection } from "../catalog/mod.ts";
import type { AttachOptions, ContainerSpec, ExecOptions, LogOptions, ProcessSession } from "../engine.ts";
import type { PullProgress } from "../image/mod.ts";
import type { Network } from "../network/mod.ts";

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
export type EngineNetwork = Pick<Network, "ensureHost" | "attach" | "detach" | "collectGarbage">;

/** What a spec is built from. */
export interface SpecInput {
  container: ContainerSpec;
  image: UnpackedImage;
  runtime: ResolvedRuntime;
  netnsPath: string;
  /** The container's own snapshot, not mounted: user names are looked up in it. */
  mounts: readonly Mount[];
  signal?: AbortSignal;
}

/** Makes OCI runtime specs. */
export interface SpecBuilder {
  build(input: SpecInput): Promise<Record<string, unknown>>;
}

/** A runtime whose needs are met. */
export interface ResolvedRuntime {
  /** containerd's name: "io.containerd.runc.v2". */
  name: string;
  options?: Any;
  isVm: boolean;
}

/** The runtimes by name. */
export interface Runtimes {
  /** Throws `invalid` for an unknown option, `precondition` that names what the runtime lacks here. */
  resolve(selection: RuntimeSelection, options: { signal?: AbortSignal }): Promise<ResolvedRuntime>;
}

/** Streams: logs, exec, attach. See `ContainerIo`. */
export interface Io {
  logPath(id: string): string;
  prepare(
    id: string,
    options: { tty: boolean; stdin: boolean },
  ): Promise<{ stdin: string; stdout: string; stderr: string; terminal: boolean }>;
  logs(id: string, options?: LogOptions): AsyncIterable<Uint8Array>;
  exec(id: string, options: ExecOptions): Promise<ProcessSession>;
  attach(id: string, options: AttachOptions): Promise<ProcessSession>;
  release(id: string): Promise<void>;
  collectGarbage(liveIds: ReadonlySet<string>): Promise<number>;
}
