import assert from "node:assert/strict";
import { serveFakeApi } from "./testing/fake_api.ts";
import { runCli } from "./testing/run_cli.ts";

Deno.test("attest prints what a node signed; its exit code says whether that was verified", async () => {
  const asked: Record<string, string>[] = [];
  await using api = await serveFakeApi({
    beacons: {
      attest({ node, type, workload }) {
        asked.push({ node, type, workload });
        const facts = { nodeName: "n2", nodeId: "id-2", type: "NODE_IDENTITY", latencyMs: 2.5 };
        if (node === "bad") return { ...facts, reason: "its signature is not good" };
        return {
          ...facts,
          verified: true,
          statement: '{"at_ms":7,"name":"n2","node":"id-2","nonce":"x","type":"NODE_IDENTITY"}',
          signature: new Uint8Array([1]),
          publicKey: new Uint8Array([2]),
          remark: "fine",
        };
      },
    },
  });
  const attest = (...args: string[]) => runCli(["attest", ...args, "--api", api.address]);
  const good = await attest("n2");
  assert.equal(good.code, 0, good.err);
  assert.match(
    good.out,
    /^node +n2 \(id-2\)\nattests +NODE_IDENTITY\nresult +VERIFIED in 2\.5 ms\nremark +fine\nat_ms +7\n/,
  );
  const json = JSON.parse((await attest("n2", "--json", "--type", "state-hash")).out);
  assert.deepEqual([json.verified, json.statement.name, json.signature], [true, "n2", "AQ=="]);
  const bad = await attest("bad");
  assert.equal(bad.code, 1);
  assert.match(bad.out, /result +REFUSED: its signature is not good/);
  await attest("--workload", "web");
  assert.deepEqual(asked, [
    { node: "n2", type: "", workload: "" },
    { node: "n2", type: "STATE_HASH", workload: "" },
    { node: "bad", type: "", workload: "" },
    { node: "", type: "", workload: "web" },
  ]);
  for (
    const [args, message] of [
      [[], /which node\?/],
      [["n2", "--type", "workload"], /--type workload needs --workload/],
      [["n2", "--type", "state-hash", "--workload", "w"], /exclude each other/],
      [["n2", "--type", "all"], /Allowed choices are node-identity, state-hash, workload/],
    ] as [string[], RegExp][]
  ) {
    const { code, err } = await attest(...args);
    assert.equal(code, 2);
    assert.match(err, message);
  }
});

Deno.test("beacon lists how the nodes do, and whether a registry knows this one", async () => {
  await using api = await serveFakeApi({
    beacons: {
      list: () => ({
        registry: "disconnected",
        registryReason: "nobody answers",
        beacons: [
          { nodeName: "n2", nodeId: "id-2", reputation: 0.75, ownScore: 0.9, ownWeight: 40, observers: 3 },
          {
            nodeName: "n1",
            isSelf: true,
            verified: true,
            latencyMs: 1.5,
            packetLoss: 0,
            capabilities: ["kvm"],
          },
        ],
      }),
    },
  });
  const { code, out } = await runCli(["beacon", "--api", api.address]);
  assert.equal(code, 0);
  const [, n1, n2, last] = out.split("\n").map((line) => line.split(/ {2,}/));
  assert.deepEqual(n1, ["n1*", "yes", "1.5 ms", "-", "0.0 %", "0", "0", "-", "-", "0", "kvm"]);
  assert.deepEqual(n2, ["n2", "no", "-", "-", "-", "0", "0", "0.75", "0.90 of 40", "3", "-"]);
  assert.deepEqual(last, ["registry: disconnected: nobody answers"]);
  const json = JSON.parse((await runCli(["beacon", "--json", "--api", api.address])).out);
  assert.deepEqual([json.registry, json.beacons[0].node, json.beacons[1].reputation], [
    "disconnected",
    "n1",
    0.75,
  ]);
});
