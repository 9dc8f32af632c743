import assert from "node:assert/strict";
import { CONTAINER_CAPABILITIES } from "./capabilities.ts";
import { cgroupMode, unifiedSwapAccounting } from "./cgroup.ts";
import { hostsFile } from "./host_files.ts";
import { parseImageConfig } from "./image_config.ts";
import { MAX_FILE_BYTES, readLayeredFile } from "./layered_fs.ts";
import { openFilesLimit } from "./open_files.ts";
import { FALLBACK_NAMESERVERS, guestResolvConf } from "./resolv_conf.ts";
import { snapshotLayers } from "./rootfs.ts";
import { type Architecture, defaultSeccomp } from "./seccomp.ts";
import { buildSpec, MAX_ARGUMENT_BYTES, MIN_MEMORY_BYTES, type SpecFacts, type SpecRequest } from "./spec.ts";
import { resolveUser } from "./user.ts";

const IMAGE = parseImageConfig("test", {
  Entrypoint: ["/start"],
  Cmd: ["--serve"],
  Env: ["A=image", "B=image", "PATH=/opt/bin"],
  WorkingDir: "/srv",
});

const REQUEST: SpecRequest = {
  id: "c1",
  milliCpus: 1500,
  memoryBytes: 512 << 20,
  pidsLimit: 512,
  env: ["B=mine"],
  args: [],
  tty: false,
  hostname: "guest",
};

const FACTS: SpecFacts = {
  architecture: "x86_64",
  cgroup: { mode: "hybrid", hasSwapAccounting: true },
  containerdNamespace: "ns",
  user: { uid: 0, gid: 0, additionalGids: [0], home: "/root" },
  netnsPath: "/run/netns/hc-c1",
  maxOpenFiles: 4096,
  hostFiles: { resolvConf: "/d/resolv.conf", hosts: "/d/hosts", hostname: "/d/hostname" },
};

Deno.test("a spec joins image, workload and machine", () => {
  const spec = buildSpec(IMAGE, REQUEST, FACTS);
  assert.deepEqual(spec.process.args, ["/start", "--serve"]);
  assert.deepEqual(spec.process.env, ["PATH=/opt/bin", "HOSTNAME=guest", "HOME=/root", "A=image", "B=mine"]);
  assert.equal(spec.process.cwd, "/srv");
  assert.equal(spec.process.noNewPrivileges, true);
  assert.deepEqual(spec.process.rlimits, [{ type: "RLIMIT_NOFILE", soft: 1024, hard: 4096 }]);
  assert.deepEqual(spec.linux.resources.cpu, { shares: 1536, quota: 150_000, period: 100_000 });
  assert.deepEqual(spec.linux.resources.memory, { limit: 512 << 20, swap: 512 << 20 });
  assert.deepEqual(spec.linux.resources.pids, { limit: 512 });
  assert.deepEqual(spec.linux.resources.devices[0], { allow: false, access: "rwm" });
  assert.equal(spec.linux.cgroupsPath, "/ns/c1");
  assert.deepEqual(spec.linux.namespaces.at(-1), { type: "network", path: "/run/netns/hc-c1" });
});

Deno.test("a spec has a cgroup namespace on v2, no swap limit without accounting, TERM with a terminal", () => {
  const cgroup = { mode: "v2", hasSwapAccounting: false } as const;
  const spec = buildSpec(IMAGE, { ...REQUEST, tty: true, args: ["x"] }, { ...FACTS, cgroup });
  assert.deepEqual(spec.linux.namespaces.at(-1), { type: "cgroup" });
  assert.equal("swap" in spec.linux.resources.memory, false);
  assert.deepEqual(spec.process.args, ["/start", "x"]);
  assert.ok(spec.process.env.includes("TERM=xterm"));
});

Deno.test("requests that cannot be are refused with the reason", () => {
  const cases: [Partial<SpecRequest>, RegExp][] = [
    [{ id: "../x" }, /not a plain name/],
    [{ milliCpus: 0 }, /CPU thousandths/],
    [{ milliCpus: NaN }, /CPU thousandths/],
    [{ memoryBytes: MIN_MEMORY_BYTES - 1 }, /below the least/],
    [{ pidsLimit: -1 }, /limit of processes/],
    [{ hostname: "a b" }, /not a host name/],
    [{ env: ["NOVALUE"] }, /not KEY=value/],
    [{ env: ["=x"] }, /not KEY=value/],
    [{ args: ["a\0b"] }, /NUL/],
    [{ args: ["x".repeat(MAX_ARGUMENT_BYTES)] }, /over 1048576 bytes/],
  ];
  for (const [over, reason] of cases) {
    assert.throws(() => buildSpec(IMAGE, { ...REQUEST, ...over }, FACTS), reason);
  }
  assert.throws(() => buildSpec(parseImageConfig("x", {}), REQUEST, FACTS), /no command/);
});

Deno.test("a refused environment entry does not tell its value", () => {
  assert.throws(
    () => buildSpec(IMAGE, { ...REQUEST, env: ["=secret"] }, FACTS),
    (error: Error) => !error.message.includes("secret"),
  );
});

Deno.test("image configurations of the wrong shape are refused by field", () => {
  assert.throws(() => parseImageConfig("img", { Env: "A=b" }), /image "img": Env is not a list of strings/);
  assert.throws(() => parseImageConfig("img", { Cmd: ["a", 1] }), /Cmd/);
  assert.throws(() => parseImageConfig("img", { User: 5 }), /User/);
  assert.throws(() => parseImageConfig("img", []), /not a JSON object/);
  assert.deepEqual(parseImageConfig("img", { Env: null }).env, []);
});

const USERS = {
  passwd: "root:x:0:0:root:/root:/bin/sh\napp:x:1000:50::/home/app:\nbad line\n:x:1:1\n",
  group: "root:x:0:\nstaff:x:50:app\nextra:x:60:root,app\nwheel:x:10:root\n",
};

Deno.test("users resolve by name and number, with their groups unless one is given", () => {
  assert.deepEqual(resolveUser("", USERS), { uid: 0, gid: 0, additionalGids: [0, 60, 10], home: "/root" });
  assert.deepEqual(resolveUser("app", USERS), {
    uid: 1000,
    gid: 50,
    additionalGids: [50, 60],
    home: "/home/app",
  });
  assert.deepEqual(resolveUser("1000", USERS), resolveUser("app", USERS));
  assert.deepEqual(resolveUser("app:wheel", USERS).additionalGids, [10]);
  assert.deepEqual(resolveUser("77:88", { passwd: "", group: "" }), {
    uid: 77,
    gid: 88,
    additionalGids: [88],
    home: "/",
  });
  assert.throws(() => resolveUser("nobody", USERS), /no user "nobody"/);
  assert.throws(() => resolveUser("app:none", USERS), /no group "none"/);
  for (const text of ["a:b:c", "4294967295", "-1", "app:"]) {
    assert.throws(() => resolveUser(text, USERS), /Cannot use user/);
  }
});

Deno.test("seccomp: dangerous calls are not allowed, namespaces are masked, clone3 is unknown", () => {
  for (const architecture of ["x86_64", "aarch64"] as Architecture[]) {
    const profile = defaultSeccomp({ architecture, capabilities: CONTAINER_CAPABILITIES });
    assert.equal(profile.defaultAction, "SCMP_ACT_ERRNO");
    const plain = new Set(
      profile.syscalls.filter((rule) => !rule.args && rule.action === "SCMP_ACT_ALLOW")
        .flatMap((rule) => rule.names),
    );
    const refused =
      "mount umount2 unshare setns keyctl add_key request_key bpf perf_event_open kexec_load reboot " +
      "init_module clone clone3 socket io_uring_setup userfaultfd open_by_handle_at pivot_root swapon settimeofday";
    for (const name of refused.split(" ")) assert.equal(plain.has(name), false, name);
    for (const name of ["execve", "openat2", "epoll_wait", "futex", "chroot"]) {
      assert.ok(plain.has(name), name);
    }
    assert.deepEqual(profile.syscalls.at(-1), { names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: 38 });
  }
});

Deno.test("cgroup mode is read out of mountinfo", () => {
  const v2 = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
  const v1 = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
  assert.equal(cgroupMode(""), undefined);
  assert.deepEqual(cgroupMode(v1), { mode: "v1", memoryRoot: "/sys/fs/cgroup/memory" });
  assert.deepEqual(cgroupMode(v1 + v2), { mode: "hybrid", memoryRoot: "/sys/fs/cgroup/memory" });
  assert.deepEqual(cgroupMode(v2), { mode: "v2", memoryRoot: "/sys/fs/cgroup/unified" });
});

Deno.test("swap is limited where a cgroup below the root can, and where none has memory yet, if the kernel can", async () => {
  const root = await Deno.makeTempDir();
  const counts = (kernel: boolean) => unifiedSwapAccounting(root, () => Promise.resolve(kernel));
  try {
    await Deno.mkdir(`${root}/init.scope`);
    assert.deepEqual([await counts(true), await counts(false)], [true, false]);
    await Deno.mkdir(`${root}/system.slice`);
    await Deno.writeTextFile(`${root}/system.slice/memory.max`, "max\n");
    assert.deepEqual([await counts(true), await counts(false)], [false, false]);
    await Deno.writeTextFile(`${root}/system.slice/memory.swap.max`, "max\n");
    assert.deepEqual([await counts(true), await counts(false)], [true, true]);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

Deno.test("resolv.conf: loopback servers give way to the upstream file, then to the fallback", () => {
  const stub = "nameserver 127.0.0.53\noptions edns0\nsearch lan\n";
  assert.equal(
    guestResolvConf([stub, "nameserver 10.0.0.2\nsearch up.lan\n"]),
    "nameserver 10.0.0.2\nsearch up.lan\n",
  );
  const fallback = FALLBACK_NAMESERVERS.map((server) => `nameserver ${server}\n`).join("");
  assert.equal(guestResolvConf([stub, ""]), `${fallback}search lan\noptions edns0\n`);
  assert.equal(
    guestResolvConf(["nameserver fe80::1\nnameserver ::1\nnameserver 1.1.1.1\n"]),
    "nameserver 1.1.1.1\n",
  );
  assert.equal(guestResolvConf([]), fallback);
});

Deno.test("hosts file and open files limit", () => {
  assert.match(hostsFile({ hostname: "web.lan", address: "10.0.0.2" }), /^10\.0\.0\.2\tweb\.lan web$/m);
  assert.equal(
    openFilesLimit("Max open files            20000                30000                files"),
    30_000,
  );
  assert.equal(
    openFilesLimit("Max open files            1024                 unlimited            files"),
    1_048_576,
  );
});

Deno.test("snapshot mounts become layers, topmost first", () => {
  const options = ["workdir=/w", "upperdir=/u", "lowerdir=/2:/1"];
  assert.deepEqual(snapshotLayers([{ type: "overlay", source: "overlay", options }]), ["/u", "/2", "/1"]);
  assert.deepEqual(snapshotLayers([{ type: "bind", source: "/s", options: ["rbind", "rw"] }]), ["/s"]);
  assert.equal(snapshotLayers([{ type: "ext4", source: "/dev/dm-1", options: [] }]), undefined);
});

Deno.test("layered files: upper wins, whiteouts and opaque folders hide, links never leave the root", async () => {
  const top = await Deno.makeTempDir({ prefix: "hc-layers-" });
  try {
    const [upper, lower] = [`${top}/upper`, `${top}/lower`];
    await Deno.writeTextFile(`${top}/secret`, "host secret");
    for (const dir of ["etc", "opaque", "a/b"]) {
      await Deno.mkdir(`${lower}/${dir}`, { recursive: true });
      await Deno.mkdir(`${upper}/${dir}`, { recursive: true });
    }
    await Deno.writeTextFile(`${lower}/etc/both`, "lower");
    await Deno.writeTextFile(`${upper}/etc/both`, "upper");
    await Deno.writeTextFile(`${lower}/etc/low`, "low");
    await Deno.writeTextFile(`${lower}/opaque/file`, "hidden");
    await Deno.writeTextFile(`${lower}/etc/gone`, "gone");
    await new Deno.Command("mknod", { args: [`${upper}/etc/gone`, "c", "0", "0"] }).output();
    await Deno.writeTextFile(`${lower}/etc/big`, "x".repeat(MAX_FILE_BYTES + 1));
    await Deno.symlink(`${top}/secret`, `${upper}/etc/absolute`);
    await Deno.symlink("../../../../../../secret", `${upper}/etc/climb`);
    await Deno.symlink("/proc/self/root/etc/passwd", `${upper}/etc/magic`);
    await Deno.symlink("/etc/low", `${upper}/a/b/inside`);
    await Deno.symlink("loop", `${upper}/etc/loop`);
    const read = (path: string) =>
      readLayeredFile([upper, lower], path, { isOpaque: (dir) => dir === `${upper}/opaque` });
    assert.equal(await read("/etc/both"), "upper");
    assert.equal(await read("/etc/low"), "low");
    assert.equal(await read("/a/b/inside"), "low");
    assert.equal(await read("/a/b/../../etc/low"), "low");
    for (const path of ["gone", "absolute", "climb", "magic", "none", "low/x"]) {
      assert.equal(await read(`/etc/${path}`), undefined, path);
    }
    assert.equal(await read("/opaque/file"), undefined);
    assert.equal(await read("/etc"), undefined);
    await assert.rejects(read("/etc/loop"), /too many symbolic links/);
    await assert.rejects(read("/etc/big"), /over 1048576/);
  } finally {
    await Deno.remove(top, { recursive: true });
  }
});
