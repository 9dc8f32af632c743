import assert from "node:assert/strict";
import { publicKeyPem } from "../agent/beacon/identity.ts";
import { memoryIdentity } from "../agent/beacon/testing.ts";
import { exportText } from "../agent/proof/export.ts";
import { verdictMessage } from "../agent/proof/proof_service.ts";
import { testLog } from "../agent/proof/testing.ts";
import { verifyLines } from "../agent/proof/verifier.ts";
import { serveFakeApi } from "./testing/fake_api.ts";
import { runCli } from "./testing/run_cli.ts";

const identity = memoryIdentity();
const workload = "00000000000a";
const lines = testLog(identity, 3);
const file = new TextEncoder().encode(exportText({ claim: identity, workload, lines }));

/** An agent with the proofs of one workload. */
function serve(log = lines) {
  return serveFakeApi({
    proofs: {
      show: ({ count }) => ({ workloadId: workload, entries: log.slice(-count) }),
      verify: ({ proofHash }) =>
        verdictMessage(verifyLines(log, { claim: identity, workload, wantedHash: proofHash || undefined }), {
          workloadId: workload,
          nodeId: identity.nodeId,
          verifiedBy: "n1",
        }),
      export: () => ({ workloadId: workload, file }),
    },
  });
}

async function withFile(bytes: Uint8Array, test: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeFile(path, bytes);
    await test(path);
  } finally {
    await Deno.remove(path);
  }
}

Deno.test("proof show prints the newest proof, or so many of them", async () => {
  await using api = await serve();
  const newest = await runCli(["proof", "show", workload, "--api", api.address]);
  assert.match(
    newest.out,
    /^SEQ +KIND +AT.*\n3 +interval +1970-01-01T00:18:40.000Z +1 +120.000s +40.000s +0.0M.*\n$/,
  );
  const two = await runCli(["proof", "show", "--id", workload, "-n", "2", "--json", "--api", api.address]);
  assert.deepEqual(JSON.parse(two.out), lines.slice(1).map((line) => JSON.parse(line)));
});

Deno.test("proof verify says VALID with the sums, or INVALID with the place, and exits so", async () => {
  await using good = await serve();
  const valid = await runCli(["proof", "verify", workload, "--api", good.address]);
  assert.equal(valid.code, 0, valid.err);
  assert.match(
    valid.out,
    /^VALID\nworkload +00000000000a\nnode .*\nproofs +3\ntime +120.000s, up to generation 1\ncpu +40.000s\n/,
  );
  const unknown = await runCli([
    "proof",
    "verify",
    workload,
    "--hash",
    "0".repeat(64),
    "--api",
    good.address,
  ]);
  assert.deepEqual([unknown.code, unknown.out], [1, "UNKNOWN: no proof that is kept has this hash\n"]);
  await using bad = await serve(lines.toSpliced(1, 1));
  const invalid = await runCli(["proof", "verify", workload, "--api", bad.address]);
  assert.deepEqual([invalid.code, invalid.out], [1, "INVALID at proof 3: it is number 3 where 2 was due\n"]);
  const json = await runCli(["proof", "verify", workload, "--json", "--api", bad.address]);
  assert.deepEqual([json.code, JSON.parse(json.out).result, JSON.parse(json.out).badSeq], [1, "INVALID", 3]);
});

Deno.test("an exported file is verified without any agent, against a key or a node's id where one is given", async () => {
  await using api = await serve();
  const { out } = await runCli(["proof", "export", workload, "--api", api.address]);
  await withFile(new TextEncoder().encode(out), async (path) => {
    const verify = (...args: string[]) =>
      runCli(["proof", "verify", "--file", path, ...args], {
        files: { "/k.pem": publicKeyPem(identity.publicKey) },
      });
    const bare = await verify();
    assert.deepEqual([bare.code, bare.out.split("\n")[0]], [0, "VALID"]);
    assert.match(bare.err, /is for you to know/);
    for (
      const anchor of [["--public-key", identity.publicKey.toBase64()], ["--public-key", "/k.pem"], [
        "--node-id",
        identity.nodeId,
      ]]
    ) {
      const { code, err } = await verify(...anchor);
      assert.deepEqual([code, err], [0, ""]);
    }
    const other = memoryIdentity();
    assert.match(
      (await verify("--public-key", other.publicKey.toBase64())).out,
      /^INVALID: its node never had the given key/,
    );
    assert.match((await verify("--node-id", other.nodeId)).out, /^INVALID: it is of node/);
    assert.equal((await verify("--public-key", "/none")).code, 2);
    assert.equal((await verify("--hash", "xyz")).code, 2);
  });
  await withFile(file.slice(0, -1), async (path) => {
    const { code, out } = await runCli(["proof", "verify", "--file", path]);
    assert.deepEqual([code, out], [1, "INVALID: it is cut off\n"]);
  });
  const missing = await runCli(["proof", "verify", "--file", "/none/at/all"]);
  assert.deepEqual([missing.code, missing.out], [1, ""]);
  assert.match(missing.err, /Cannot read "\/none\/at\/all"/);
});

Deno.test("proof export writes a new file and overwrites none", async () => {
  await using api = await serve();
  const dir = await Deno.makeTempDir();
  try {
    const write = () => runCli(["proof", "export", workload, "-o", `${dir}/p`, "--api", api.address]);
    assert.equal((await write()).code, 0);
    assert.deepEqual(await Deno.readFile(`${dir}/p`), file);
    assert.match((await write()).err, /Cannot write ".*": it is there already/);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("proof commands name what is missing or too much", async () => {
  for (
    const [args, message] of [
      [["proof", "verify"], /which workload/],
      [["proof", "show"], /which workload/],
      [["proof", "verify", "w", "--public-key", "x"], /--public-key goes with --file only/],
      [["proof", "verify", "w", "--file", "x"], /an id or --file, not both/],
    ] as [string[], RegExp][]
  ) {
    const { code, err } = await runCli(args);
    assert.equal(code, 2);
    assert.match(err, message);
  }
});
