import assert from "node:assert/strict";
import { busyboxImage } from "../support/images.ts";
import { LiveAgent, until } from "./live_agent.ts";

const IMAGE = "test/web:1";

Deno.test("a gVisor workload serves its page, takes execs, and leaves nothing when it is stopped", async () => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage({ text: "from a sandbox\n" }), IMAGE);
  const before = await agent.inventory();
  const id = await agent.spawn(
    "--image-ref",
    IMAGE,
    "--runtime",
    "runsc",
    "--mem",
    "256",
    "--ports",
    "8080:8080",
  );
  await until("the page comes", async () => await agent.page(id) === "from a sandbox\n");
  assert.equal((await agent.list())[0].runtime, "runsc");
  // gVisor's own kernel answers, not the host's.
  const version = await agent.ok("exec", id, "cat", "/proc/version");
  assert.doesNotMatch(version, new RegExp(Deno.osRelease().replaceAll(".", "\\.")));
  assert.equal((await agent.cli(["exec", id, "sh", "-c", "exit 7"])).code, 7);
  const piped = await agent.cli(["exec", "-i", id, "cat"], { stdin: "through the sandbox" });
  assert.deepEqual(piped, { code: 0, out: "through the sandbox", err: "" });
  await until("its line is in the log", async () => (await agent.ok("logs", id)).includes("serving on port"));
  await agent.ok("stop", id);
  assert.deepEqual(await agent.inventory(), before);
});

Deno.test("a runtime that this machine lacks is one line that names what is missing, and leaves nothing", async () => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage(), IMAGE);
  const before = await agent.inventory();
  const table: [string[], RegExp][] = [
    [["--runtime", "kata"], /runtime "kata": .*(containerd-shim-kata-v2|\/dev\/kvm)/],
    [["--runtime", "firecracker"], /runtime "firecracker": .*(containerd-shim-aws-firecracker|\/dev\/kvm)/],
    [["--runtime", "cloud-hypervisor"], /runtime "cloud-hypervisor": .*(containerd-shim-kata-v2|\/dev\/kvm)/],
    [["--runtime", "nonsense"], /runtime "nonsense": .*neither a known runtime/],
    [
      ["--runtime", "io.containerd.absent.v9"],
      /runtime "io\.containerd\.absent\.v9": .*containerd-shim-absent-v9/,
    ],
    [["--runtime", "../../bin/sh"], /runtime/],
    [["--provider", "firecracker"], /runtime "hypercore\.example": /],
    [["--runtime", "runsc", "--runtime-option", "platform=nonsense"], /no platform "nonsense"/],
    [["--runtime", "runc", "--runtime-option", "BinaryName=\/bin\/sh"], /unknown option "BinaryName"/],
  ];
  for (const [flags, message] of table) {
    const { code, out, err } = await agent.cli(["spawn", "--image-ref", IMAGE, "--mem", "64", ...flags]);
    assert.equal(code, 1, flags.join(" ") + err);
    assert.equal(out, "");
    assert.match(err, message);
    assert.equal(err.trim().split("\n").length, 1, err);
  }
  assert.deepEqual(await agent.inventory(), before);
});
