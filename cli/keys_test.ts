import assert from "node:assert/strict";
import { adminService } from "../agent/control/admin_service.ts";
import { Membership } from "../agent/membership/membership.ts";
import { silentLog } from "../runtime/log.ts";
import { serveFakeApi } from "./testing/fake_api.ts";
import { runCli } from "./testing/run_cli.ts";

const OLD = new Uint8Array(32).fill(1);
const FRESH = new Uint8Array(32).fill(2);

async function member(dir: string, name: string, keys: Uint8Array[] = [OLD]): Promise<Membership> {
  return await Membership.open({
    name,
    nodeId: `id-${name}`,
    bind: { host: "127.0.0.1", port: 0 },
    profile: "lan",
    tags: {},
    keys,
    snapshotFile: `${dir}/${name}.snapshot`,
    log: silentLog,
  });
}

function admin(membership: Membership) {
  return serveFakeApi({
    admin: adminService({ membership, operations: {} as never, leave() {} }),
  });
}

Deno.test("keys rotate gives every member the new key alone, a made one where none is given", async () => {
  const dir = await Deno.makeTempDir();
  try {
    await using a = await member(dir, "a");
    await using b = await member(dir, "b");
    await b.join([`127.0.0.1:${a.serf.local.port}`]);
    await using api = await admin(a);
    const given = await runCli(["keys", "rotate", FRESH.toBase64(), "--api", api.address]);
    assert.equal(given.code, 0, given.err);
    assert.equal(given.out, `new key ${FRESH.toBase64()}\n2 of 2 members answered\n`);
    assert.deepEqual([a.keys, b.keys], [[FRESH], [FRESH]]);
    const made = await runCli(["keys", "rotate", "--json", "--api", api.address]);
    const { keys, step } = JSON.parse(made.out);
    assert.equal(step, "remove");
    assert.notEqual(keys[0].key, FRESH.toBase64());
    for (const { keys: ring } of [a, b]) assert.deepEqual(ring.map((each) => each.toBase64()), [keys[0].key]);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("keys rotate says where it stopped and how to go on", async () => {
  await using api = await serveFakeApi({
    admin: {
      manageKeys: ({ key }) => ({
        members: 3,
        answers: 2,
        errors: {},
        keys: [{ key, nodes: 2, primaryOn: 0 }],
        step: "install",
      }),
    },
  });
  const { code, err } = await runCli(["keys", "rotate", FRESH.toBase64(), "--api", api.address]);
  assert.equal(code, 1);
  assert(err.includes(
    `Cannot rotate the key everywhere: 1 gave no answer; stopped at "install", nobody is cut off; see to them, ` +
      `then: hypercore keys rotate ${FRESH.toBase64()}`,
  ));
});

Deno.test("keys remove is refused for a key that nobody has, and done where another member has it", async () => {
  const dir = await Deno.makeTempDir();
  try {
    await using a = await member(dir, "a");
    await using b = await member(dir, "b", [OLD, FRESH]);
    await b.join([`127.0.0.1:${a.serf.local.port}`]);
    await using api = await admin(a);
    const remove = (key: Uint8Array) => runCli(["keys", "remove", key.toBase64(), "--api", api.address]);
    const { code, err } = await remove(new Uint8Array(32).fill(3));
    assert.equal(code, 1);
    assert.equal(err, "hypercore: Cannot remove the gossip key: no member that answers has this key\n");
    assert.equal((await remove(FRESH)).code, 0);
    assert.deepEqual([a.keys, b.keys], [[OLD], [OLD]]);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("keys rotate is refused where gossip is not encrypted, and with what is no key", async () => {
  const dir = await Deno.makeTempDir();
  try {
    await using plain = await member(dir, "plain", []);
    await using api = await admin(plain);
    const { code, err } = await runCli(["keys", "rotate", "--api", api.address]);
    assert.equal(code, 1);
    assert.match(err, /this cluster runs without encryption/);
    assert.equal((await runCli(["keys", "rotate", "short", "--api", api.address])).code, 2);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
