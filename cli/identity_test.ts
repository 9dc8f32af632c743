import assert from "node:assert/strict";
import { identityService } from "../agent/api/identity_service.ts";
import { loadIdentity } from "../agent/beacon/identity_file.ts";
import { memoryIdentity } from "../agent/beacon/testing.ts";
import { serveFakeApi } from "./testing/fake_api.ts";
import { runCli } from "./testing/run_cli.ts";

Deno.test("identity show and rotate ask the agent; the id stays, the key changes", async () => {
  const identity = memoryIdentity();
  await using api = await serveFakeApi({
    identity: identityService(identity, { nodeName: "n1", onRotated() {} }),
  });
  const call = async (...args: string[]) => {
    const { code, out, err } = await runCli(["identity", ...args, "--api", api.address]);
    assert.equal(code, 0, err);
    return out;
  };
  const before = JSON.parse(await call("show", "--json"));
  assert.deepEqual(before, {
    node: "n1",
    nodeId: identity.nodeId,
    publicKey: identity.publicKey.toBase64(),
    rotations: [],
  });
  assert.match(
    await call("show"),
    new RegExp(`^node id     ${identity.nodeId}\npublic key  .{44}\nrotations   0\n$`),
  );
  assert.match(
    await call("show", "--pem"),
    /^-----BEGIN PUBLIC KEY-----\n.{60}\n-----END PUBLIC KEY-----\n$/,
  );
  const after = JSON.parse(await call("rotate", "--json"));
  assert.equal(after.nodeId, before.nodeId);
  assert.notEqual(after.publicKey, before.publicKey);
  assert.equal(after.rotations[0].old_key, before.publicKey);
});

Deno.test("with --offline the identity's file is shown and rotated, and never made", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const offline = (...args: string[]) => runCli(["identity", ...args, "--offline", "--data-dir", dir]);
    for (const command of ["show", "rotate"]) {
      const { code, err } = await offline(command);
      assert.equal(code, 1);
      assert.match(
        err,
        /^hypercore: Cannot (show|rotate) the identity ".*identity\.key": there is none; the agent makes it/,
      );
    }
    const { nodeId } = await loadIdentity(`${dir}/identity.key`);
    assert.equal(JSON.parse((await offline("rotate", "--json")).out).rotations.length, 1);
    const shown = JSON.parse((await offline("show", "--json", "--identity-key", `${dir}/identity.key`)).out);
    assert.equal(shown.nodeId, nodeId);
    assert.equal(shown.rotations.length, 1);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
