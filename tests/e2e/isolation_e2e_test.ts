import assert from "node:assert/strict";
import { isUnified } from "../support/cgroup.ts";
import { busyboxImage } from "../support/images.ts";
import { TestHost } from "../support/host.ts";
import { LiveAgent, until } from "./live_agent.ts";

const IMAGE = "test/web:1";
/** Of the host and of a machine outside, on the cable between them. */
const UPLINK = { host: "10.9.0.1", outside: "10.9.0.2" };
/** As a container sees it. Under cgroup v1 the folder above is a file system of its own, which it may write to. */
const MEMORY_LIMIT = `/sys/fs/cgroup/${isUnified() ? "memory.max" : "memory/memory.limit_in_bytes"}`;
const METADATA = "169.254.169.254";
const ECHO_PORT = 9000;

/** A web server at an address of a host; it answers "here" to whoever reaches it. */
async function serveAt(host: TestHost, dir: string, address: string): Promise<void> {
  await Deno.mkdir(`${dir}/www`, { recursive: true });
  await Deno.writeTextFile(`${dir}/www/index.html`, "here");
  const args = ["httpd", "-f", "-p", `${address}:${ECHO_PORT}`, "-h", `${dir}/www`];
  host.spawn("/bin/busybox", args, { stdin: "null", stdout: "null", stderr: "null" });
  await until(`${address} answers`, async () => {
    const request = {
      program: "curl",
      args: ["-s", "-m", "5", `http://${address}:${ECHO_PORT}/`],
      timeoutMs: 60_000,
    };
    return (await host.runCommand(request)).stdout === "here";
  });
}

/** Seconds that an answer which is to come may take, on a machine that is busy with other tests. */
const PATIENT_S = 30;

/** What a guest gets from an address within some seconds: the answer's first line, or nothing. */
async function reach(
  agent: LiveAgent,
  id: string,
  target: { address: string; port: number; seconds?: number },
): Promise<string> {
  const { address, port, seconds = 2 } = target;
  const request = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w ${seconds} ${address} ${port} | head -n 1`;
  return (await agent.cli(["exec", id, "sh", "-c", request])).out.trim();
}

Deno.test("a guest reaches the outside, but not the host, other guests or the metadata address", async () => {
  await using outside = await TestHost.create();
  await using agent = await LiveAgent.start();
  await agent.host.connect(outside, { address: UPLINK.host, peerAddress: UPLINK.outside });
  await outside.run("ip", "address", "add", `${METADATA}/32`, "dev", "lo");
  await agent.host.run("ip", "address", "add", "10.77.0.1/32", "dev", "lo");
  await serveAt(outside, agent.dir, "0.0.0.0");
  await serveAt(agent.host, agent.dir, "0.0.0.0");
  await agent.load(busyboxImage(), IMAGE);
  const web = ["--image-ref", IMAGE, "--mem", "64", "--ports", "8080:8080"];
  const [guest, other] = await Promise.all([agent.spawn(...web), agent.spawn(...web)]);
  const addressOf = async (id: string) => JSON.parse(await agent.ok("inspect", id)).address as string;
  const [own, peer] = await Promise.all([addressOf(guest), addressOf(other)]);
  // An error page of the proxy would do for what is not empty.
  for (const id of [guest, other]) {
    await until("both serve", async () => (await agent.page(id)).startsWith("Hello"));
  }

  const open: [string, string, number][] = [
    ["itself", own, 8080],
    ["the outside", UPLINK.outside, ECHO_PORT],
  ];
  for (const [what, address, port] of open) {
    assert.match(
      await reach(agent, guest, { address, port, seconds: PATIENT_S }),
      /^HTTP\/1\.[01] 200/,
      what,
    );
  }
  const gateway = "192.168.127.1";
  const forbidden: [string, string, number][] = [
    ["a host port by the gateway", gateway, ECHO_PORT],
    ["a host port by the uplink's address", UPLINK.host, ECHO_PORT],
    ["a host port by another address of the host", "10.77.0.1", ECHO_PORT],
    ["the API by the gateway", gateway, 8000],
    ["the HTTP API by the gateway", gateway, 8001],
    ["the API by its loopback address", "127.0.0.1", 8000],
    ["the proxy by the gateway", gateway, 8080],
    ["another guest", peer, 8080],
    ["the metadata address", METADATA, ECHO_PORT],
  ];
  const reached = await Promise.all(
    forbidden.map(async ([what, address, port]) => [what, await reach(agent, guest, { address, port })]),
  );
  assert.deepEqual(reached, forbidden.map(([what]) => [what, ""]));

  // By IPv6: the host's end of the cable has a link-local address.
  const { stdout } = await agent.host.run("sh", "-c", "ip -6 -br address show | grep ^veth || true");
  for (const [, address] of stdout.matchAll(/(fe80::[0-9a-f:]+)\/64/g)) {
    assert.equal(await reach(agent, guest, { address: `${address}%eth0`, port: 8080 }), "", address);
  }
  // With another guest's address as its own it reaches nobody, not even the outside.
  const spoof = `ip address add ${peer}/32 dev eth0; echo code $?`;
  assert.doesNotMatch((await agent.cli(["exec", guest, "sh", "-c", spoof])).out, /code 0/);
});

Deno.test("a container has few capabilities, a seccomp filter, no way to new privileges, and bounds", async () => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage(), IMAGE);
  const id = await agent.spawn("--image-ref", IMAGE, "--mem", "64", "--pids-limit", "24");
  const sh = (script: string, ...flags: string[]) => agent.cli(["exec", ...flags, id, "sh", "-c", script]);

  const status = (await sh("cat /proc/self/status")).out;
  const field = (name: string) => new RegExp(`^${name}:\\s*(\\S+)`, "m").exec(status)?.[1];
  assert.equal(field("NoNewPrivs"), "1");
  assert.equal(field("Seccomp"), "2");
  const capabilities = (which: string) => BigInt(`0x${field(which)}`);
  const CAPS = {
    netAdmin: 12n,
    netRaw: 13n,
    sysModule: 16n,
    sysPtrace: 19n,
    sysAdmin: 21n,
    sysTime: 25n,
    mknod: 27n,
  };
  for (const set of ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"]) {
    for (const [name, bit] of Object.entries(CAPS)) {
      if (name === "netRaw") continue; // ping may work
      assert.equal(capabilities(set) >> bit & 1n, 0n, `${name} in ${set}`);
    }
  }
  assert.match((await sh("grep -i ^CapEff /proc/self/status", "--user", "app")).out, /0000000000000000/);

  const refused: [string, RegExp][] = [
    ["mount -t tmpfs none /tmp", /denied|not permitted/],
    ["unshare -r true", /not permitted|denied/],
    ["unshare -m true", /not permitted|denied/],
    ["mknod /tmp/sda b 8 0 && cat /tmp/sda", /not permitted|denied/],
    ["echo 1 > /proc/sys/kernel/panic", /[Rr]ead-only/],
    ["echo b > /proc/sysrq-trigger", /[Rr]ead-only|denied|nonexistent/],
    ["echo 1 > /sys/kernel/mm/ksm/run", /[Rr]ead-only|denied|nonexistent/],
    [`echo 512m > ${MEMORY_LIMIT}`, /[Rr]ead-only|denied/],
    ["hostname pwned", /not permitted|denied/],
    ["date -s 2001-01-01", /not permitted|denied/],
    ["ip link set eth0 down", /not permitted|denied/],
  ];
  for (const [script, reason] of refused) {
    // Not every program's exit code tells.
    const { err, out } = await sh(script);
    assert.match(err + out, reason, script);
  }
  for (const path of ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"]) {
    assert.equal(
      (await sh(`cat ${path} 2>/dev/null | head -c 1 | wc -c`)).out.trim(),
      "0",
      `${path} is masked`,
    );
  }
  assert.equal((await sh("ls /dev | grep -E 'sd|vd|nvme|mem|kmsg|kvm' | wc -l")).out.trim(), "0");

  // keyctl and its like are no program of the image: called by number, from the filter's own view.
  const spec = JSON.parse(await agent.ok("inspect", id)).spec;
  const allowed = new Set(
    (spec.linux.seccomp.syscalls as { names: string[]; action: string }[])
      .filter(({ action }) => action === "SCMP_ACT_ALLOW").flatMap(({ names }) => names),
  );
  for (
    const call of ["keyctl", "add_key", "request_key", "bpf", "kexec_load", "init_module", "mount", "setns"]
  ) {
    assert.ok(!allowed.has(call), call);
  }
  assert.notEqual(spec.linux.seccomp.defaultAction, "SCMP_ACT_ALLOW");

  // More processes than its limit: the container's own forks fail, the host and the agent do not notice.
  const forks = await sh("for i in $(seq 64); do sleep 5 & done; wait");
  assert.match(forks.err, /can't fork|Resource temporarily unavailable/);
  await until("its processes are gone again", async () => (await sh("true")).code === 0);
  assert.equal((await agent.list())[0].restarts, 0);
});

Deno.test("the environment of a workload is shown to nobody but itself", async () => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage(), IMAGE);
  const id = await agent.spawn("--image-ref", IMAGE, "--mem", "64", "--env", "PASSWORD=s3cr3t-value");
  assert.equal((await agent.ok("exec", id, "sh", "-c", "echo $PASSWORD")).trim(), "s3cr3t-value");
  for (const args of [["list", "--json"], ["list"], ["inspect", id]]) {
    assert.ok(!(await agent.ok(...args)).includes("s3cr3t"), args.join(" "));
  }
  assert.ok(!(await agent.curl("http://127.0.0.1:8001/metrics")).includes("s3cr3t"));
  assert.ok(!(await Deno.readTextFile(agent.logFile)).includes("s3cr3t"));
});
