import assert from "node:assert/strict";
import { type CgroupLimits, isUnified, readCgroupLimits } from "../../tests/support/cgroup.ts";
import { startContainerd, type TestContainerd } from "../../tests/support/containerd.ts";
import { TestHost } from "../../tests/support/host.ts";
import { RuntimeCatalog, searchPath } from "../catalog/mod.ts";
import { anyJson, RUNTIME_SPEC_TYPE_URL } from "../containerd/any.ts";
import type { ContainerSpec } from "../engine.ts";
import { silentLog } from "../log.ts";
import { GuestNetworks } from "../network/mod.ts";
import { HostSpecBuilder } from "./builder.ts";
import { Xattr } from "./xattr.ts";

const MIB = 1 << 20;

/** A containerd, a host network and everything between image configuration and running task. */
class Bench implements AsyncDisposable {
  private constructor(
    readonly containerd: TestContainerd,
    readonly host: TestHost,
    readonly networks: GuestNetworks,
  ) {}

  static async start(): Promise<Bench> {
    const containerd = await startContainerd();
    const host = await TestHost.create();
    const networks = new GuestNetworks({
      dataDir: containerd.scratch,
      subnet: "192.168.127.0/24",
      cniPath: ["/usr/lib/cni"],
      log: silentLog,
      run: host.runCommand,
      writeSysctl: host.writeSysctl,
    });
    await networks.ensureHost();
    return new Bench(containerd, host, networks);
  }

  /** Runs a shell script in a container of a busybox image; its output and exit code. */
  async run(
    script: string,
    options: { runtime?: string; image?: Record<string, unknown>; container?: Partial<ContainerSpec> } = {},
  ): Promise<{ output: string; exitCode: number; limits: CgroupLimits }> {
    const client = this.containerd.client();
    const { namespace, scratch } = this.containerd;
    const id = `c-${crypto.randomUUID().slice(0, 8)}`;
    const runtime = { name: options.runtime ?? "runc", options: {} };
    const container: ContainerSpec = {
      id,
      image: "test",
      milliCpus: 500,
      memoryBytes: 256 * MIB,
      pidsLimit: 100,
      env: [],
      // One stream: the shim copies two side by side, and may tear their lines.
      args: ["/bin/sh", "-c", `exec 2>&1; ${script}`],
      tty: false,
      stdin: false,
      hostname: "guest",
      runtime,
      labels: {},
      ...options.container,
    };
    const resolved = await new RuntimeCatalog({
      dir: `${scratch}/runtimes`,
      stateRoot: this.containerd.runcRoot,
      searchPath: searchPath(Deno.env.get("PATH")),
    }).resolve(runtime);
    const { mounts } = await client.snapshots.prepare({
      snapshotter: "overlayfs",
      key: id,
      labels: { "containerd.io/gc.root": "test" },
    });
    await fillRootfs(mounts[0].source);
    const guest = await this.networks.attach(id);
    using xattr = new Xattr();
    const specs = new HostSpecBuilder({
      dir: `${scratch}/containers`,
      containerdNamespace: namespace,
      xattr,
    });
    const spec = await specs.build({
      container,
      image: { name: "test", config: options.image ?? {} },
      netnsPath: guest.netnsPath,
      address: guest.address,
      mounts,
    });
    await client.containers.create({
      container: {
        id,
        snapshotter: "overlayfs",
        snapshotKey: id,
        runtime: { name: resolved.name, options: resolved.options },
        spec: anyJson(RUNTIME_SPEC_TYPE_URL, spec),
      },
    });
    const log = `${scratch}/${id}.log`;
    await client.tasks.create({
      containerId: id,
      rootfs: mounts,
      stdout: `file://${log}`,
      stderr: `file://${log}`,
      options: resolved.options,
    });
    const limits = readCgroupLimits({ namespace, id });
    await client.tasks.start({ containerId: id });
    const { exitStatus } = await client.tasks.wait({ containerId: id }, { timeoutMs: 60_000 });
    await client.tasks.delete({ containerId: id });
    await client.containers.delete({ id });
    await this.networks.detach(id);
    await specs.release(id);
    return { output: await Deno.readTextFile(log), exitCode: exitStatus, limits };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.containerd[Symbol.asyncDispose]();
    } finally {
      await this.host[Symbol.asyncDispose]();
    }
  }
}

async function fillRootfs(root: string): Promise<void> {
  for (const dir of ["bin", "dev", "etc", "proc", "sys", "tmp", "work"]) await Deno.mkdir(`${root}/${dir}`);
  await Deno.copyFile("/bin/busybox", `${root}/bin/busybox`);
  for (
    const name of "sh cat echo id pwd env grep mount unshare mknod ls ip hostname chroot mkdir".split(" ")
  ) {
    await Deno.symlink("busybox", `${root}/bin/${name}`);
  }
  await Deno.writeTextFile(`${root}/etc/passwd`, "root:x:0:0::/root:/bin/sh\napp:x:1234:77::/work:/bin/sh\n");
  await Deno.writeTextFile(`${root}/etc/group`, "root:x:0:\napp:x:77:\nextra:x:88:app\n");
}

Deno.test("a container runs as its spec says", async (t) => {
  await using bench = await Bench.start();

  await t.step("without privileges: no new ones, ten capabilities, a system call filter", async () => {
    const { output } = await bench.run("grep -E 'NoNewPrivs|Seccomp:|CapEff|CapBnd' /proc/self/status");
    const field = (name: string) => new RegExp(`^${name}:\\s+(\\S+)`, "m").exec(output)?.[1];
    assert.equal(field("NoNewPrivs"), "1");
    assert.equal(field("Seccomp"), "2");
    // chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service sys_chroot
    assert.equal(field("CapEff"), "00000000000405fb");
    assert.equal(field("CapBnd"), "00000000000405fb");
  });

  await t.step("mounting, new namespaces and device nodes are refused, chroot is not", async () => {
    const { output } = await bench.run(
      "mount -t tmpfs none /tmp; unshare -U echo user; unshare -n echo net; mknod /tmp/n b 8 0; chroot / echo chroot ok",
    );
    assert.match(output, /mount: .*(not permitted|denied|are you root)/i);
    assert.match(output, /unshare.*not permitted/);
    assert.doesNotMatch(output, /^(user|net)$/m);
    assert.match(output, /mknod: .*not permitted/);
    assert.match(output, /^chroot ok$/m);
  });

  await t.step("with user, groups, home, directory and environment of the image", async () => {
    const { output } = await bench.run("id; pwd; env; echo $HOME", {
      image: { User: "app", WorkingDir: "/work", Env: ["A=image", "B=image"] },
      container: { env: ["B=mine", "C=mine"] },
    });
    assert.match(output, /uid=1234\(app\) gid=77\(app\) groups=77\(app\),88\(extra\)/);
    for (const line of ["/work", "A=image", "B=mine", "C=mine", "HOSTNAME=guest", "HOME=/work"]) {
      assert.ok(output.split("\n").includes(line), `${line} in ${output}`);
    }
    assert.match(output, /^PATH=\/usr\/local\/sbin:/m);
  });

  await t.step(
    "with host name, hosts and resolver files, its own network, and no writable kernel files",
    async () => {
      const { output } = await bench.run(
        "hostname; cat /etc/hosts /etc/hostname /etc/resolv.conf; ip -o -4 address; " +
          "echo 1 > /proc/sys/net/ipv4/ip_forward; mkdir -p /sys/fs/cgroup/memory/x; cat /proc/timer_list; ls /dev",
      );
      assert.match(output, /^guest$/m);
      assert.match(output, /192\.168\.127\.\d+\tguest/);
      assert.match(output, /^nameserver (?!127\.)/m);
      assert.match(output, /eth0 .*inet 192\.168\.127\./);
      assert.match(output, /ip_forward: Read-only file system/);
      assert.match(output, /mkdir: .*cgroup.*Read-only file system/);
      assert.doesNotMatch(output, /^(kvm|vda|mem|net)$/m);
    },
  );

  await t.step("within its limits", async () => {
    const { limits: { swapBytes = 0, ...limits } } = await bench.run("true");
    assert.deepEqual(limits, {
      cpuQuotaUs: 50_000,
      cpuPeriodUs: 100_000,
      // 512 shares of 2 to 262144 are the 20th weight of 1 to 10000.
      ...isUnified() ? { cpuWeight: 20 } : { cpuShares: 512 },
      memoryBytes: 256 * MIB,
      pids: 100,
    });
    assert.equal(swapBytes, 0);
  });

  await t.step("under gVisor, by the same spec", async () => {
    const { output, exitCode } = await bench.run("cat /proc/version; ip -o -4 address; exit 7", {
      runtime: "runsc",
    });
    assert.match(output, /Linux version 4\.4\.0/);
    assert.match(output, /192\.168\.127\.\d+/);
    assert.equal(exitCode, 7);
  });
});
