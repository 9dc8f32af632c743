import assert from "node:assert/strict";
import { hostPlatform } from "../../runtime/image/manifest.ts";
import {
  capabilityList,
  detectCapabilities,
  MAX_CAPABILITIES,
  MAX_CAPABILITY_LENGTH,
} from "./capabilities.ts";

Deno.test("capabilities name architecture, cgroups, containerd, runtimes, KVM and GPUs", () => {
  const facts = {
    arch: "amd64",
    containerdVersion: "1.6.20",
    runtimes: ["runc", "runsc"],
    hasKvm: true,
    cgroupVersion: 2 as const,
    gpus: ["nvidia"],
  };
  assert.deepEqual(capabilityList(facts), [
    "arch:amd64",
    "cgroup:v2",
    "containerd:1.6.20",
    "gpu",
    "gpu:nvidia",
    "kvm",
    "runtime:runc",
    "runtime:runsc",
  ]);
  const bare = { arch: "arm64", runtimes: [], hasKvm: false, cgroupVersion: 1 as const, gpus: [] };
  assert.deepEqual(capabilityList(bare), ["arch:arm64", "cgroup:v1"]);
  const many = Array.from({ length: 99 }, (_, i) => `r${i}`);
  assert.equal(
    capabilityList({ ...bare, runtimes: ["x".repeat(MAX_CAPABILITY_LENGTH), ...many] }).length,
    MAX_CAPABILITIES,
  );
});

Deno.test("what cannot be found out is not there", async () => {
  const away = () => Promise.reject(new Error("away"));
  const found = await detectCapabilities({ runtimes: away, health: away });
  assert.ok(found.includes(`arch:${hostPlatform().architecture}`));
  assert.ok(!found.some((each) => each.startsWith("runtime:") || each.startsWith("containerd:")));
});
