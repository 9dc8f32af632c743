import assert from "node:assert/strict";
import { formatHostPort, isHostName, isLoopback, parseHostPort } from "./host_port.ts";
import {
  MAX_PORTS,
  parseBytes,
  parseEnvEntry,
  parseImageRef,
  parseMemoryMib,
  parseMilliCpus,
  parsePorts,
  parseSubnet,
  parseWorkloadId,
} from "./values.ts";

Deno.test("host:port takes names, IPv4, bracketed IPv6 and all addresses", () => {
  for (
    const [text, host, port] of [
      ["127.0.0.1:8000", "127.0.0.1", 8000],
      ["[::1]:1", "::1", 1],
      [":7946", "0.0.0.0", 7946],
      ["node-1.example:65535", "node-1.example", 65535],
    ] as const
  ) {
    assert.deepEqual(parseHostPort(text), { host, port });
    assert.deepEqual(parseHostPort(formatHostPort({ host, port })), { host, port });
  }
});

Deno.test("host:port refuses what is none, and says why", () => {
  for (
    const text of [
      "",
      "8000",
      "a:0",
      "a:65536",
      "a:-1",
      "a:1e3",
      "::1:80",
      "[::g]:80",
      "[]:80",
      "a b:80",
      "256.1.1.1:80",
      "-a:80",
      "a:80:90",
    ]
  ) {
    assert.throws(() => parseHostPort(text), /is not/, text);
  }
});

Deno.test("loopback is 127/8, ::1 and localhost", () => {
  for (const host of ["127.0.0.1", "127.9.9.9", "::1", "localhost"]) assert.equal(isLoopback(host), true);
  for (const host of ["0.0.0.0", "::", "10.0.0.1", "127.example", "localhost.example"]) {
    assert.equal(isLoopback(host), false);
  }
  assert.equal(isHostName("1.2.3"), false);
});

Deno.test("ports are pairs, listed once each", () => {
  assert.deepEqual([...parsePorts("443:8080,80")], [[443, 8080], [80, 80]]);
  assert.deepEqual([...parsePorts("81:1", new Map([[80, 2]]))], [[80, 2], [81, 1]]);
  assert.throws(() => parsePorts("443:8080,443:80"), /443 is listed twice/);
  for (const text of ["", "0:1", "1:0", "65536:1", "1:2:3", "a:1", "1:", ":1", "1:1,"]) {
    assert.throws(() => parsePorts(text), Error, text);
  }
});

Deno.test("ports are bounded", () => {
  const many = (count: number) => Array.from({ length: count }, (_, index) => index + 1).join(",");
  assert.equal(parsePorts(many(MAX_PORTS)).size, MAX_PORTS);
  assert.throws(() => parsePorts(many(MAX_PORTS + 1)), /more than 64 ports/);
});

Deno.test("CPU and memory take units and refuse zero and the absurd", () => {
  assert.equal(parseMilliCpus("0.5"), 500);
  assert.equal(parseMilliCpus("4"), 4000);
  for (const text of ["0", "-1", "0.0001", "5000", "1e2", "", "NaN"]) {
    assert.throws(() => parseMilliCpus(text), /CPU count/, text);
  }
  assert.equal(parseMemoryMib("512"), 512);
  assert.equal(parseMemoryMib("2g"), 2048);
  assert.equal(parseMemoryMib("1.5GiB"), 1536);
  assert.equal(parseMemoryMib("512m"), 512);
  for (const text of ["0", "-1", "1.5", "9999999999", "1x", "", "100t"]) {
    assert.throws(() => parseMemoryMib(text), /memory size/, text);
  }
  assert.equal(parseBytes("16m"), 16_777_216);
  assert.throws(() => parseBytes("0"), /size in bytes/);
});

Deno.test("environment entries need a key and an equals sign", () => {
  assert.equal(parseEnvEntry("A=b=c"), "A=b=c");
  assert.equal(parseEnvEntry("A="), "A=");
  for (const text of ["A", "=b", "A B=c", "A=\0"]) {
    assert.throws(() => parseEnvEntry(text), Error, JSON.stringify(text));
  }
});

Deno.test("ids never look like paths, flags or control characters", () => {
  assert.equal(parseWorkloadId("a1b2-web.1"), "a1b2-web.1");
  for (const text of ["", "../../etc/shadow", "-rf", "a/b", "a\nb", "a..b", "a".repeat(129), "é"]) {
    assert.throws(() => parseWorkloadId(text), /is not a workload/, JSON.stringify(text));
  }
});

Deno.test("a subnet has a prefix with room and no stray bits", () => {
  assert.equal(parseSubnet("192.168.127.0/24"), "192.168.127.0/24");
  for (
    const text of ["192.168.127.1/24", "192.168.127.0", "10.0.0.0/30", "::/64", "1.2.3.0/24/1", "300.0.0.0/8"]
  ) {
    assert.throws(() => parseSubnet(text), Error, text);
  }
});

Deno.test("image references hold no spaces, flags or control characters", () => {
  assert.equal(parseImageRef("registry.example:5000/a/b@sha256:00"), "registry.example:5000/a/b@sha256:00");
  for (const text of ["", " ", "a b", "-x", "a\x1b[0m", "a".repeat(513)]) {
    assert.throws(() => parseImageRef(text));
  }
});
