import assert from "node:assert/strict";
import { Code } from "@connectrpc/connect";
import { busyboxImage, ociLayoutTar } from "../support/images.ts";
import { startRegistry } from "../support/registry.ts";
import { DEADLINE_MS } from "./agent_under_test.ts";
import { pieces, rejection, startGrpcNode } from "./grpc_api.ts";

Deno.test("events, logs and progress over gRPC", async (t) => {
  await using there = await startGrpcNode();
  const { api } = there;

  await t.step("events tell of a workload's life", async () => {
    const leave = new AbortController();
    const types: string[] = [];
    const watching = (async () => {
      for await (
        const { type } of api.workloads.watchEvents({}, { signal: leave.signal, timeoutMs: DEADLINE_MS })
      ) {
        types.push(type);
        if (type === "stopped") return;
      }
    })();
    // The watch has no first message; when another call that came later is answered, it stands.
    await api.cluster.list({});
    const id = await there.spawn({ args: ["sh", "-c", "sleep 0.5; exit 3"] });
    await assert.doesNotReject(async () => {
      while (!types.includes("started")) {
        const late = AbortSignal.timeout(DEADLINE_MS);
        await new Promise((resolve) => setTimeout(resolve, 20));
        late.throwIfAborted();
      }
    });
    await api.cluster.stop({ id });
    await watching;
    assert.deepEqual(types.slice(0, 4), ["spawned", "exited", "restart-scheduled", "started"]);
    await rejection(async () => {
      for await (const _ of api.workloads.watchEvents({ id: "0123456789ab" }));
    });
  });

  await t.step("logs are followed to the end of the stream", async () => {
    const id = await there.spawn({ args: ["sh", "-c", "echo one; sleep 0.3; echo two; sleep 1000"] });
    let text = "";
    for await (const { data } of api.workloads.streamLogs({ id, follow: true }, { timeoutMs: DEADLINE_MS })) {
      text += new TextDecoder().decode(data);
      if (text.includes("two\n")) break;
    }
    assert.equal(text, "one\ntwo\n");
    await api.cluster.stop({ id, graceMs: 1 });
  });

  await t.step("a pull tells of every blob until it is there", async () => {
    await using registry = await startRegistry();
    const image = busyboxImage({ text: "other\n" });
    const imageRef = await registry.push(image, "test/pulled:1");
    const last = new Map<string, string>();
    let name = "";
    for await (const { event } of api.images.pull({ imageRef })) {
      if (event.case === "progress") last.set(event.value.digest, event.value.status);
      if (event.case === "image") name = event.value.name;
    }
    assert.equal(name, imageRef);
    for (const layer of image.layers) {
      assert(["done", "exists", "downloaded"].includes(last.get(layer.digest)!), JSON.stringify([...last]));
    }
    const absent = rejection(async () => {
      for await (const _ of api.images.pull({ imageRef: `${registry.host}/test/absent:1` }));
    });
    assert.equal((await absent).code, Code.NotFound);
  });

  await t.step("a spawn tells of its pull and its steps, and gives its result", async () => {
    await using registry = await startRegistry();
    const imageRef = await registry.push(busyboxImage({ text: "another\n" }), "test/spawned:1");
    const seen: string[] = [];
    let id = "";
    for await (const { event } of api.workloads.spawn({ imageRef, memory: 64 }, { timeoutMs: DEADLINE_MS })) {
      seen.push(event.case === "step" ? event.value : event.case!);
      if (event.case === "result") id = event.value.id;
    }
    assert.deepEqual([...new Set(seen)], ["pull", "unpacking", "network", "starting", "result"]);
    await api.cluster.stop({ id });
  });

  await t.step("an archive that is none is refused, and so is one that breaks off", async () => {
    const noise = rejection(api.images.load(pieces(new Uint8Array(100_000).fill(7))));
    assert.equal((await noise).code, Code.InvalidArgument);
    const whole = ociLayoutTar([{ image: busyboxImage({ text: "cut\n" }), name: "docker.io/test/cut:1" }]);
    await rejection(api.images.load(pieces(whole.subarray(0, whole.length / 2))));
    const { images } = await api.images.listImages({});
    assert(!images.some((image) => image.name.includes("cut")));
  });
});
