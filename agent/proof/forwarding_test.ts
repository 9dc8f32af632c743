import assert from "node:assert/strict";
import type { DescService } from "@bufbuild/protobuf";
import { type Client, createClient, createRouterTransport } from "@connectrpc/connect";
import { ProofService } from "../../proto/gen/hypercore/v1/proof_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import { memoryIdentity } from "../beacon/testing.ts";
import type { IdentityClaim } from "../beacon/identity.ts";
import { peekLine } from "./entry.ts";
import { exportText } from "./export.ts";
import { clusterProofs } from "./forwarding.ts";
import { verdictMessage } from "./proof_service.ts";
import { testLog } from "./testing.ts";

const owner = memoryIdentity();
const other = memoryIdentity();
const workload = "00000000000a";
const lines = testLog(owner, 4);
const hashes = lines.map((line) => peekLine(line)!.hash);

/** A node that asks the owner of a workload for its proofs; the owner may lie. */
function asker(
  options: {
    claim?: IdentityClaim;
    lines?: string[];
    file?: string;
    claimOf?: IdentityClaim;
    toldHash?: string;
  } = {},
) {
  const observed: string[] = [];
  const text = options.file ??
    exportText({ claim: options.claim ?? owner, workload, lines: options.lines ?? lines });
  const remote = createRouterTransport((router) =>
    router.service(ProofService, {
      show: ({ id, count }) => ({ workloadId: id, entries: lines.slice(-count) }),
      // What the owner thinks of its own proofs is of no account.
      verify: () => ({ result: "VALID", reason: "says the owner" }),
      export: ({ id }) => ({ workloadId: id, file: new TextEncoder().encode(text) }),
    })
  );
  const local = createRouterTransport((router) =>
    router.service(
      ProofService,
      clusterProofs({
        show: ({ id }) => ({ workloadId: id, entries: ["local"] }),
        verify: ({ id }) =>
          verdictMessage({ result: "UNKNOWN", reason: "local" }, {
            workloadId: id,
            nodeId: "",
            verifiedBy: "n1",
          }),
        export: ({ id }) => ({ workloadId: id, file: new TextEncoder().encode("local") }),
      }, {
        locate(id) {
          if (id === "web" || id === workload) return { id: workload, nodeId: owner.nodeId };
          if (id === "here") return { id: "00000000000b" };
          throw new RuntimeError("not-found", `Cannot find workload "${id}"`);
        },
        client: <S extends DescService>(service: S, nodeId: string): Client<S> => {
          assert.equal(nodeId, owner.nodeId);
          return createClient(service, remote);
        },
        nodeName: "n1",
        claimOf: () => options.claimOf,
        toldHash: () => options.toldHash,
        observe: (observation) => observed.push(observation.kind === "verified" ? observation.result : ""),
      }),
    )
  );
  return { observed, client: createClient(ProofService, local) };
}

Deno.test("calls for proofs go to where the workload runs, also by name; what is here or was here stays here", async () => {
  const { client } = asker();
  assert.deepEqual((await client.show({ id: "web", count: 2 })).entries, lines.slice(-2));
  assert.match(new TextDecoder().decode((await client.export({ id: "web" })).file), /hypercore-proof\/1/);
  for (const id of ["here", "00000000000c"]) {
    assert.deepEqual((await client.show({ id })).entries, ["local"]);
    assert.equal((await client.verify({ id })).reason, "local");
    assert.equal(new TextDecoder().decode((await client.export({ id })).file), "local");
  }
});

Deno.test("the asking node verifies by itself: a genuine log is valid, whoever made it", async () => {
  const { client, observed } = asker({ claimOf: owner, toldHash: hashes[2] });
  const verdict = await client.verify({ id: "web", proofHash: hashes[1] });
  assert.deepEqual([verdict.result, verdict.verifiedBy, verdict.nodeId], ["VALID", "n1", owner.nodeId]);
  assert.equal(verdict.summary?.lastHash, hashes[3]);
  assert.equal((await asker().client.verify({ id: workload })).result, "VALID");
  assert.deepEqual(observed, ["VALID"]);
});

Deno.test("the word of an owner who lies is not taken", async () => {
  const cases: [Parameters<typeof asker>[0], string, RegExp][] = [
    [{ lines: lines.toSpliced(1, 1) }, "INVALID", /number 3 where 2 was due/],
    [{ lines: lines.slice(0, 2), toldHash: hashes[3] }, "INVALID", /told of is not in it/],
    [{ claim: other, lines: testLog(other, 2) }, "INVALID", /of another node/],
    [{ file: "nonsense\n" }, "INVALID", /no header of proofs/],
    [{ lines: [] }, "UNKNOWN", /no proofs/],
    [{ lines: testLog(owner, 2, () => ({ workload: "00000000000b" })) }, "INVALID", /another workload/],
    [
      { claimOf: { ...other, nodeId: owner.nodeId, publicKey: other.publicKey } },
      "INVALID",
      /identity does not hold/,
    ],
  ];
  for (const [options, result, reason] of cases) {
    const { client, observed } = asker(options);
    const verdict = await client.verify({ id: "web" });
    assert.equal(verdict.result, result, verdict.reason);
    assert.match(verdict.reason, reason);
    assert.deepEqual(observed, [result]);
  }
});
