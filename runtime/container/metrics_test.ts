import assert from "node:assert/strict";
import { create, toBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import * as v1 from "../../proto/gen/containerd/cgroups/v1/metrics_pb.ts";
import * as v2 from "../../proto/gen/containerd/cgroups/v2/metrics_pb.ts";
import { Status } from "../../proto/gen/containerd/v1/types/task_pb.ts";
import type { ContainerdClient } from "../containerd/client.ts";
import { RuntimeError } from "../errors.ts";
import { silentLog } from "../log.ts";
import { MAX_LAST_METRICS, parseFigures, TaskMetrics } from "./metrics.ts";
import { parseAgeMs } from "./process_age.ts";

Deno.test("figures of cgroups v1 are read: nanoseconds, peak, bytes by operation", () => {
  const metrics = create(v1.MetricsSchema, {
    cpu: { usage: { total: 5_000_999n, user: 3_000_000n, kernel: 2_000_999n } },
    memory: { usage: { usage: 10n, max: 20n, limit: 30n } },
    blkio: {
      ioServiceBytesRecursive: [
        { op: "Read", major: 8n, value: 1n },
        { op: "Write", major: 8n, value: 2n },
        { op: "Read", major: 9n, value: 4n },
        { op: "Total", major: 8n, value: 3n },
      ],
    },
    pids: { current: 7n },
    memoryOomControl: { oomKill: 1n },
  });
  // containerd leaves the usual prefix of type URLs out; some shims do not.
  for (const prefix of ["", "types.containerd.io/"]) {
    const data = create(AnySchema, {
      typeUrl: `${prefix}io.containerd.cgroups.v1.Metrics`,
      value: toBinary(v1.MetricsSchema, metrics),
    });
    assert.deepEqual(parseFigures(data), {
      cgroupVersion: 1,
      cpuUs: 5_000,
      cpuUserUs: 3_000,
      cpuKernelUs: 2_000,
      memoryBytes: 10,
      memoryPeakBytes: 20,
      ioReadBytes: 5,
      ioWriteBytes: 2,
      pids: 7,
      oomKills: 1,
    });
  }
});

Deno.test("figures of cgroups v2 are read; a peak the kernel does not tell is left out", () => {
  const metrics = create(v2.MetricsSchema, {
    cpu: { usageUsec: 5n, userUsec: 3n, systemUsec: 2n },
    memory: { usage: 10n },
    io: { usage: [{ rbytes: 1n, wbytes: 2n }, { rbytes: 3n, wbytes: 4n }] },
    pids: { current: 7n },
    memoryEvents: { oomKill: 2n },
  });
  const data = (fields: typeof metrics) =>
    create(AnySchema, {
      typeUrl: "io.containerd.cgroups.v2.Metrics",
      value: toBinary(v2.MetricsSchema, fields),
    });
  const figures = parseFigures(data(metrics));
  assert.deepEqual(figures, {
    cgroupVersion: 2,
    cpuUs: 5,
    cpuUserUs: 3,
    cpuKernelUs: 2,
    memoryBytes: 10,
    memoryPeakBytes: undefined,
    ioReadBytes: 4,
    ioWriteBytes: 6,
    pids: 7,
    oomKills: 2,
  });
  metrics.memory!.maxUsage = 99n;
  assert.equal(parseFigures(data(metrics))?.memoryPeakBytes, 99);
});

Deno.test("figures of an unknown kind are no figures; what no counter should reach stays a number", () => {
  assert.equal(parseFigures(create(AnySchema, { typeUrl: "io.containerd.other.Stats" })), undefined);
  const huge = create(v2.MetricsSchema, { cpu: { usageUsec: 2n ** 64n - 1n } });
  const data = create(AnySchema, {
    typeUrl: "io.containerd.cgroups.v2.Metrics",
    value: toBinary(v2.MetricsSchema, huge),
  });
  assert.equal(parseFigures(data)?.cpuUs, Number.MAX_SAFE_INTEGER);
});

Deno.test("a process's age is read whatever its name holds", () => {
  const stat = `7 (a) b (c) S ${Array.from({ length: 18 }, (_, i) => i).join(" ")} 1234 0`;
  assert.equal(parseAgeMs(stat, "20.50 3.00\n"), 20_500 - 12_340);
  assert.equal(parseAgeMs(stat, "1.00 3.00\n"), 0);
  assert.equal(parseAgeMs("", "x"), undefined);
});

Deno.test("the last figures of so many tasks are remembered, those of the oldest are forgotten", async () => {
  const fake = fakeTasks();
  const metrics = new TaskMetrics({ client: fake.client, log: silentLog });
  for (let i = 0; i <= MAX_LAST_METRICS; i++) await metrics.keepLast(`c${i}`);
  fake.areGone = true;
  assert.equal((await metrics.read("c1")).isLast, true);
  await assert.rejects(
    metrics.read("c0"),
    (error) => error instanceof RuntimeError && error.code === "not-found",
  );
});

Deno.test("a shim that does not answer costs no more than fresh figures", async () => {
  const fake = fakeTasks();
  const metrics = new TaskMetrics({ client: fake.client, log: silentLog });
  const first = await metrics.read("c1");
  fake.failure = new RuntimeError("timeout", "Cannot call: no answer");
  assert.deepEqual(await metrics.read("c1"), first);
  await assert.rejects(metrics.read("c2"), /no answer/);
  await metrics.keepLast("c1");
  await metrics.keepLast("c2");
  assert.equal((await metrics.read("c1")).isLast, true);
});

/** Tasks that all have the same figures. */
function fakeTasks() {
  const data = create(AnySchema, { typeUrl: "io.containerd.cgroups.v2.Metrics" });
  const fake = {
    areGone: false,
    failure: undefined as Error | undefined,
    client: undefined as unknown as ContainerdClient,
  };
  const answer = <T>(value: T) => {
    if (fake.failure !== undefined) return Promise.reject(fake.failure);
    if (fake.areGone) return Promise.reject(new RuntimeError("not-found", "Cannot call: not found"));
    return Promise.resolve(value);
  };
  const tasks = {
    metrics: ({ filters }: { filters: string[] }) => answer({ metrics: [{ id: filters[0].slice(4), data }] }),
    get: () => answer({ process: { pid: 1, status: Status.RUNNING, exitStatus: 0 } }),
  };
  fake.client = { tasks } as unknown as ContainerdClient;
  return fake;
}
