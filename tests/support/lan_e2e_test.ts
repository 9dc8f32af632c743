import assert from "node:assert/strict";
import { TestLan } from "./lan.ts";

Deno.test("hosts of a test network reach each other but where they are cut off, and have namespaces of their own", async () => {
  await using lan = await TestLan.create(3);
  const [a, b] = lan.hosts;
  const reaches = async (from: number, to: number) => {
    const args = ["ping", "-c1", "-W1", "-q", TestLan.address(to)];
    const result = await lan.hosts[from].runCommand({ program: "busybox", args, timeoutMs: 10_000 });
    return result.code === 0;
  };
  // A new bridge, or an answer on a busy machine, may take more than a moment.
  const untilReached = async (from: number, to: number) => {
    for (let tries = 1; !await reaches(from, to); tries++) assert(tries < 30, `${from} never reaches ${to}`);
  };
  await untilReached(0, 1);
  await lan.cut([0], [1]);
  assert(!await reaches(0, 1));
  assert(!await reaches(1, 0));
  await untilReached(0, 2);
  await lan.heal();
  await untilReached(0, 1);
  await lan.cut([0], [1], { oneWay: true });
  assert(!await reaches(0, 1));
  await lan.heal();
  await lan.heal();
  for (const host of [a, b]) await host.run("ip", "netns", "add", "same-name");
  assert.match((await a.run("ip", "netns", "list")).stdout, /same-name/);
});

Deno.test("a slow cable delays each packet by what it says and loses some, and whole transfers pass", async () => {
  await using lan = await TestLan.create(2);
  await lan.slow(1, { delayMs: 30, lossPercent: 10 });
  const args = ["ping", "-c60", "-i0.05", "-W2", "-q", TestLan.address(1)];
  const { stdout } = await lan.hosts[0].runCommand({ program: "busybox", args, timeoutMs: 60_000 });
  const [, shortestMs] = /min\/avg\/max = ([\d.]+)\//.exec(stdout)!;
  assert(Number(shortestMs) >= 60, stdout);
  const [, lost] = /(\d+)% packet loss/.exec(stdout)!;
  // A packet passes the cable twice: of 60 about 11 are lost, and all or none practically never.
  assert(Number(lost) > 0 && Number(lost) < 60, stdout);
  const dir = await Deno.makeTempDir({ prefix: "hc-lan-" });
  try {
    await Deno.writeFile(`${dir}/page`, new Uint8Array(300_000));
    const serve = ["httpd", "-f", "-p", `${TestLan.address(1)}:9000`, "-h", dir];
    lan.hosts[1].spawn("busybox", serve, { stdin: "null", stdout: "null", stderr: "null" });
    const url = `http://${TestLan.address(1)}:9000/page`;
    const get = [
      "-s",
      "--retry",
      "30",
      "--retry-connrefused",
      "-o",
      "/dev/null",
      "-w",
      "%{size_download}",
      url,
    ];
    const got = await lan.hosts[0].runCommand({ program: "curl", args: get, timeoutMs: 60_000 });
    assert.equal(got.stdout, "300000", got.stderr);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
