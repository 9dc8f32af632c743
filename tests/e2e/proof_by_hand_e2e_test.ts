import assert from "node:assert/strict";
import { memoryIdentity } from "../../agent/beacon/testing.ts";
import { compact } from "../../agent/proof/compact.ts";
import { entryLine, peekLine, signBody } from "../../agent/proof/entry.ts";
import { exportText } from "../../agent/proof/export.ts";
import { followingBody, testLog } from "../../agent/proof/testing.ts";

const GUIDE = new URL("../../docs/trust.md", import.meta.url).pathname;

/** Runs the script of the guide on a text. */
async function byHand(text: string): Promise<{ code: number; out: string }> {
  const script = /^## By hand$[\s\S]*?^```sh\n([\s\S]*?)^```$/m.exec(await Deno.readTextFile(GUIDE))![1];
  const dir = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${dir}/proofs.jsonl`, text);
    const { code, stdout, stderr } = await new Deno.Command("/bin/sh", {
      args: ["-c", script, "check", `${dir}/proofs.jsonl`],
    }).output();
    return { code, out: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

Deno.test("proofs are checked by hand with jq and openssl, as the guide says, and forged ones are found", async () => {
  const identity = memoryIdentity();
  const lines = testLog(identity, 4);
  await identity.rotate(1_000);
  await identity.rotate(2_000);
  const last = peekLine(lines[3])!;
  const next = signBody(followingBody(last as never), identity);
  const short = compact([...lines, entryLine(next)], { identity, nowMs: 9_000_000, keptBytes: 2_500 });
  for (const log of [[...lines, entryLine(next)], short]) {
    const text = exportText({ claim: identity, workload: "00000000000a", lines: log });
    assert.deepEqual(await byHand(text), { code: 0, out: `VALID up to ${next.hash}\n` });
    if (log === short) continue;
    const forgeries: [string, RegExp][] = [
      [
        text.replace(/"cpu_us":(\d)/, (_, digit) => `"cpu_us":${(Number(digit) + 1) % 10}`),
        /INVALID: a hash/,
      ],
      [
        text.replace(/("node_id":")(.)/, (_, name, digit) => name + (digit === "0" ? "1" : "0")),
        /INVALID: the id/,
      ],
      [text.split("\n").toSpliced(-3, 1).join("\n"), /INVALID: the chain/],
      [text.replace('"at_ms":1000,', '"at_ms":1001,'), /INVALID: a rotation's signature/],
      [
        text.replace(/("signature":")([^"]*)(")(?![\s\S]*"signature")/, `$1${peekLine(log[0])!.signature}$3`),
        /INVALID: a signature/,
      ],
    ];
    for (const [forged, reason] of forgeries) {
      assert.notEqual(forged, text);
      const { code, out } = await byHand(forged);
      assert.equal(code, 1, out);
      assert.match(out, reason);
    }
  }
});
