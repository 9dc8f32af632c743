import { create } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import type { ContainerdClient } from "../../../runtime/containerd/client.ts";
import { CniDriver, type CniPlugin, type CniResult } from "../../../runtime/network/cni.ts";
import { LOOPBACK_PLUGIN, pluginChain } from "../../../runtime/network/chain.ts";
import { type RunCommand, runCommand } from "../../../runtime/network/command.ts";
import { parseSubnet } from "../../../runtime/network/subnet.ts";

const SNAPSHOTTER = "overlayfs";
const NETWORK = "floor";
const SIGKILL = 9;
const COMMAND_TIMEOUT_MS = 30_000;

/** What a hand-made container is made of. */
export interface FloorOptions {
  client: ContainerdClient;
  cniPath: readonly string[];
  /** Scratch directory for leases and logs. */
  dir: string;
  /** Id of a container of the engine: the hand-made ones get its spec, runtime and image. */
  template: string;
}

/**
 * Starts and removes a container with the fewest calls that containerd and CNI allow, one after the other and without
 * any bookkeeping: what an engine's own work is compared with.
 */
export class Floor {
  readonly #options: FloorOptions;
  readonly #cni: CniDriver;
  readonly #run: RunCommand = runCommand;
  readonly #plugins: CniPlugin[];

  constructor(options: FloorOptions) {
    this.#options = options;
    this.#cni = new CniDriver({ cniPath: options.cniPath, run: this.#run });
    this.#plugins = pluginChain({
      subnet: parseSubnet("192.168.128.0/24"),
      ipamDir: `${options.dir}/ipam`,
      tap: false,
    });
  }

  /** Milliseconds from the first call until the process runs, by step; the container is gone again afterwards. */
  async cycle(id: string): Promise<Record<string, number>> {
    const { client, dir, template } = this.#options;
    const model = (await client.containers.get({ id: template })).container!;
    const parent = JSON.parse(model.labels["hypercore.engine/chainId"]);
    const text = new TextDecoder().decode(model.spec!.value);
    const key = `floor-${id}`;
    const netnsPath = `/run/netns/${key}`;
    const steps: Record<string, number> = {};
    const timed = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
      const beganMs = performance.now();
      const result = await work();
      steps[name] = performance.now() - beganMs;
      return result;
    };
    const beganMs = performance.now();
    const labels = { "containerd.io/gc.root": "true" };
    const { mounts } = await timed(
      "Snapshots.Prepare",
      () => client.snapshots.prepare({ snapshotter: SNAPSHOTTER, key, parent, labels }),
    );
    await timed("ip netns add", () => this.#ip("add", key));
    let result: CniResult | undefined;
    await timed("CNI loopback", () => this.#call("ADD", LOOPBACK_PLUGIN, { key, netnsPath, ifName: "lo" }));
    for (const plugin of this.#plugins) {
      await timed(`CNI ${plugin.type}`, async () => {
        result = await this.#call("ADD", plugin, { key, netnsPath, ifName: "eth0", prevResult: result });
      });
    }
    await timed("Containers.Create", async () => {
      const spec = JSON.parse(text);
      spec.linux.cgroupsPath = spec.linux.cgroupsPath.replace(template, key);
      const network = spec.linux.namespaces.find((namespace: { type: string }) =>
        namespace.type === "network"
      );
      network.path = netnsPath;
      await client.containers.create({
        container: {
          id: key,
          image: model.image,
          snapshotter: SNAPSHOTTER,
          snapshotKey: key,
          runtime: model.runtime,
          spec: create(AnySchema, {
            typeUrl: model.spec!.typeUrl,
            value: new TextEncoder().encode(JSON.stringify(spec)),
          }),
        },
      });
    });
    const stdout = `file://${dir}/${key}.log`;
    await timed(
      "Tasks.Create",
      () => client.tasks.create({ containerId: key, rootfs: mounts, stdout, stderr: stdout }),
    );
    await timed("Tasks.Start", () => client.tasks.start({ containerId: key }));
    steps.spawn = performance.now() - beganMs;
    await timed("stop", () => this.#remove({ key, netnsPath, result }));
    return steps;
  }

  async #remove({ key, netnsPath, result }: { key: string; netnsPath: string; result?: CniResult }) {
    const { client, dir } = this.#options;
    const ended = client.tasks.wait({ containerId: key });
    await client.tasks.kill({ containerId: key, signal: SIGKILL });
    await ended;
    await client.tasks.delete({ containerId: key });
    for (const plugin of this.#plugins.toReversed()) {
      await this.#call("DEL", plugin, { key, netnsPath, ifName: "eth0", prevResult: result });
    }
    await this.#ip("delete", key);
    await client.snapshots.remove({ snapshotter: SNAPSHOTTER, key });
    await client.containers.delete({ id: key });
    await Deno.remove(`${dir}/${key}.log`);
  }

  #call(
    verb: "ADD" | "DEL",
    plugin: CniPlugin,
    target: { key: string; netnsPath: string; ifName: string; prevResult?: CniResult },
  ): Promise<CniResult | undefined> {
    const { key, ...rest } = target;
    return this.#cni.call({ verb, network: NETWORK, plugin, containerId: key, ...rest });
  }

  async #ip(verb: "add" | "delete", name: string): Promise<void> {
    const args = ["netns", verb, name];
    const { code, stderr } = await this.#run({ program: "ip", args, timeoutMs: COMMAND_TIMEOUT_MS });
    if (code !== 0) throw new Error(`Cannot ${verb} netns "${name}": ${stderr}`);
  }
}
