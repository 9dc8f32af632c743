import assert from "node:assert/strict";
import type { PullProgress } from "./mod.ts";
import { BlobProgress } from "./progress.ts";

Deno.test("progress tells each status, and bytes ten times a second at most", () => {
  let nowMs = 0;
  const reports: PullProgress[] = [];
  const progress = new BlobProgress("sha256:x", 1_000, { report: (p) => reports.push(p), now: () => nowMs });
  progress.status("downloading");
  for (let i = 1; i <= 100; i++) {
    nowMs += 20;
    progress.bytes(i * 10);
  }
  progress.status("downloaded");
  progress.status("downloaded");
  progress.status("unpacking");
  progress.status("done");
  const statuses = reports.map((r) => r.status).filter((status, i, all) => status !== all[i - 1]);
  assert.deepEqual(statuses, ["waiting", "downloading", "downloaded", "unpacking", "done"]);
  assert(reports.length <= 5 + 20, `${reports.length} reports in two seconds`);
  assert(reports.some((r) => r.bytesPerSecond >= 450 && r.bytesPerSecond <= 510), "500 bytes a second");
  assert.deepEqual(reports.at(-1), {
    digest: "sha256:x",
    status: "done",
    bytes: 1_000,
    totalBytes: 1_000,
    bytesPerSecond: 0,
  });
});

Deno.test("bytes of an interrupted pull do not count for the rate", () => {
  let nowMs = 0;
  const reports: PullProgress[] = [];
  const progress = new BlobProgress("sha256:x", 10_000, { report: (p) => reports.push(p), now: () => nowMs });
  progress.status("downloading");
  progress.bytes(9_000, { isEarlier: true });
  nowMs = 1_000;
  progress.bytes(9_100);
  assert.equal(reports.at(-1)?.bytes, 9_100);
  assert.equal(reports.at(-1)?.bytesPerSecond, 100);
});
