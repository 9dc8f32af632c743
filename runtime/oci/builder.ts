import type { ContainerSpec } from "../engine.ts";
import { RuntimeError } from "../errors.ts";
import { type CgroupFacts, readCgroupFacts } from "./cgroup.ts";
import { hostFilePaths, writeHostFiles } from "./host_files.ts";
import { parseImageConfig } from "./image_config.ts";
import { openFilesLimit } from "./open_files.ts";
import { needsUserFiles, readUserFiles, type SnapshotMount } from "./rootfs.ts";
import type { Architecture } from "./seccomp.ts";
import { buildSpec } from "./spec.ts";
import { resolveUser } from "./user.ts";
import type { Xattr } from "./xattr.ts";

/** What {@linkcode HostSpecBuilder.build} needs of a container. */
export interface SpecInput {
  container: ContainerSpec;
  /** `config` as the image's configuration has it. */
  image: { name: string; config: unknown };
  netnsPath: string;
  /** The guest's own address, for its /etc/hosts. */
  address?: string;
  /** The container's snapshot, at rest. */
  mounts: readonly SnapshotMount[];
}

/** What a {@linkcode HostSpecBuilder} is given. */
export interface HostSpecBuilderOptions {
  /** Where the files lie that are mounted into containers. Absolute. */
  dir: string;
  containerdNamespace: string;
  /** The machine's own by default, as Deno spells it. */
  architecture?: string;
  xattr: Pick<Xattr, "isOpaque">;
}

/**
 * Builds specs for this machine: asks it for its facts, reads the image's users, writes the files that are mounted
 * into the container. Those stay in `<dir>/<id>` until {@linkcode release}.
 */
export class HostSpecBuilder {
  readonly #dir: string;
  readonly #containerdNamespace: string;
  readonly #architecture: string;
  readonly #xattr: Pick<Xattr, "isOpaque">;

  constructor(options: HostSpecBuilderOptions) {
    this.#dir = options.dir;
    this.#xattr = options.xattr;
    this.#containerdNamespace = options.containerdNamespace;
    this.#architecture = options.architecture ?? Deno.build.arch;
  }

  /** Throws `invalid` for what image or workload ask wrongly, `precondition` for what the machine lacks. */
  async build(input: SpecInput): Promise<Record<string, unknown>> {
    const { container, netnsPath } = input;
    const image = parseImageConfig(input.image.name, input.image.config);
    const user = resolveUser(
      image.user,
      await readUserFiles(input.mounts, { isNeeded: needsUserFiles(image.user), xattr: this.#xattr }),
    );
    const facts = {
      architecture: this.#checkArchitecture(),
      cgroup: await this.#cgroup(container.id),
      containerdNamespace: this.#containerdNamespace,
      user,
      netnsPath,
      maxOpenFiles: openFilesLimit(await Deno.readTextFile("/proc/self/limits")),
    };
    const dir = `${this.#dir}/${container.id}`;
    const spec = buildSpec(image, container, { ...facts, hostFiles: hostFilePaths(dir) });
    await writeHostFiles({ dir, hostname: container.hostname, address: input.address });
    return { ...spec };
  }

  /** Brings a container's files up to date before it starts again: its address and the host's resolvers may be others. */
  async refresh(id: string, options: { hostname: string; address?: string }): Promise<void> {
    await writeHostFiles({ dir: `${this.#dir}/${id}`, ...options });
  }

  /** Removes a container's files; it must be gone. Idempotent. */
  async release(id: string): Promise<void> {
    try {
      await Deno.remove(`${this.#dir}/${id}`, { recursive: true });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  /** Removes the files of containers that are not in the set; `live` must name those in creation too. */
  async collectGarbage(live: ReadonlySet<string>): Promise<number> {
    const stale: string[] = [];
    try {
      for await (const { name } of Deno.readDir(this.#dir)) if (!live.has(name)) stale.push(name);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    for (const id of stale) await this.release(id);
    return stale.length;
  }

  #checkArchitecture(): Architecture {
    if (this.#architecture === "x86_64" || this.#architecture === "aarch64") return this.#architecture;
    throw new RuntimeError(
      "precondition",
      `Cannot build a spec for "${this.#architecture}": there is no system call filter for it`,
    );
  }

  async #cgroup(id: string): Promise<CgroupFacts> {
    const facts = await readCgroupFacts();
    if (facts) return facts;
    throw new RuntimeError("precondition", `Cannot build the spec of "${id}": no cgroups are mounted`);
  }
}
