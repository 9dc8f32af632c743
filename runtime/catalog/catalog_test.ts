import assert from "node:assert/strict";
import { RuntimeError } from "../errors.ts";
import { hasVirtualization, RuntimeCatalog, searchPath } from "./catalog.ts";
import { parsePlatforms, planGvisor } from "./gvisor.ts";
import type { MicroVmSpec } from "./mod.ts";
import { planRuntime, shimProgram } from "./plans.ts";

const select = (name: string, options: Record<string, string> = {}, microVm?: MicroVmSpec) => ({
  name,
  options,
  microVm,
});

const MICRO_VM: MicroVmSpec = {
  provider: "firecracker",
  vcpu: 2,
  memoryMiB: 2048,
  hostNetDev: "eth0",
  kernel: "/vmlinux",
  rootfsPath: "",
};

Deno.test("runtime names become containerd's, and the shim's program follows", () => {
  const names = ["runc", "kata", "cloud-hypervisor", "firecracker", "io.containerd.wasmtime.v1"]
    .map((name) => planRuntime(select(name)).name);
  assert.deepEqual(names, [
    "io.containerd.runc.v2",
    "io.containerd.kata.v2",
    "io.containerd.kata.v2",
    "aws.firecracker",
    "io.containerd.wasmtime.v1",
  ]);
  assert.equal(shimProgram("hypercore.example"), "containerd-shim-hypercore-example");
});

Deno.test("unknown options, names and paths are refused", () => {
  assert.throws(
    () => planRuntime(select("runc", { binary: "/tmp/x" })),
    /unknown option "binary"; it has none/,
  );
  assert.throws(() => planRuntime(select("kata", { debug: "1" })), /unknown option "debug"; it knows config/);
  for (const name of ["/tmp/evil-shim", "io..x", "bogus", "a/b.c"]) {
    assert.throws(() => planRuntime(select(name)), /neither a known runtime/);
  }
  for (const config of ["/etc/shadow", "../../etc/shadow.toml", "/etc/kata-containers/../shadow.toml"]) {
    assert.throws(() => planRuntime(select("kata", { config })), /is not a \.toml in/);
  }
  assert.throws(() => planRuntime(select("a.b", { config_path: "/x" })), /go together/);
  assert.throws(() => planRuntime(select("runc", {}, MICRO_VM)), /for hypercore\.example only/);
});

Deno.test("the original's VM shim gets the spec as JSON in its own spelling, and a tap device", () => {
  const plan = planRuntime(select("hypercore.example", {}, MICRO_VM));
  assert.equal(plan.isVm, true);
  assert.deepEqual(plan.options, {
    kind: "json",
    typeUrl: "models.MicroVMSpec",
    value: {
      provider: "firecracker",
      kernel: "/vmlinux",
      vcpu: 2,
      memory_inmb: 2048,
      host_net_dev: "eth0",
      rootfs_path: "",
    },
  });
  const cases: [Partial<MicroVmSpec>, RegExp][] = [
    [{ provider: "toString" }, /provider "toString"/],
    [{ vcpu: 0 }, /vCPUs/],
    [{ vcpu: 65 }, /vCPUs/],
    [{ memoryMiB: 1023 }, /MiB/],
    [{ memoryMiB: 32_769 }, /MiB/],
    [{ kernel: "vmlinux" }, /absolute path/],
    [{ hostNetDev: "eth0;x" }, /network interface/],
  ];
  for (const [over, reason] of cases) {
    assert.throws(() => planRuntime(select("hypercore.example", {}, { ...MICRO_VM, ...over })), reason);
  }
});

Deno.test("gVisor takes the best platform its build knows", () => {
  const platforms = parsePlatforms(
    "-platform string\n\tspecifies which platform to use: systrap (default), ptrace, kvm.",
  );
  assert.deepEqual(platforms, ["systrap", "ptrace", "kvm"]);
  const plan = (options: Record<string, string>, platforms: string[]) =>
    planGvisor(select("runsc", options), { hasShim: false, platforms });
  assert.equal(plan({}, platforms).platform, "systrap");
  assert.equal(plan({}, ["ptrace", "kvm"]).platform, "ptrace");
  assert.throws(() => plan({}, ["kvm"]), /names no platform/);
  assert.throws(() => plan({ platform: "systrap" }, ["ptrace"]), /no platform "systrap"; it has ptrace/);
  assert.throws(() => plan({ network: "bridge" }, ["ptrace"]), /network "bridge"/);
  assert.throws(() => plan({ rootless: "1" }, ["ptrace"]), /unknown option "rootless"/);
});

Deno.test("what a runtime lacks is named before anything is made", async () => {
  const catalog = new RuntimeCatalog({ dir: "/nonexistent", searchPath: ["/nonexistent/bin"] });
  for (const name of ["runc", "kata", "firecracker", "io.containerd.wasmtime.v1", "runsc"]) {
    await assert.rejects(catalog.resolve(select(name)), (error: unknown) => {
      assert.ok(error instanceof RuntimeError && error.code === "precondition");
      assert.match(error.message, /program "\S+" is not in \/nonexistent\/bin/);
      return true;
    });
  }
});

Deno.test("a CPU without virtualisation is known by its flags", () => {
  assert.equal(hasVirtualization("flags\t\t: fpu vme svm\n"), true);
  assert.equal(hasVirtualization("flags\t\t: fpu vme\n"), false);
  assert.equal(hasVirtualization("Features\t: fp asimd\n"), true);
  assert.deepEqual(searchPath("/x:rel:/usr/bin").slice(0, 2), ["/x", "/usr/bin"]);
});
