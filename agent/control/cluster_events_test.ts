import assert from "node:assert/strict";
import { RuntimeError } from "../../runtime/errors.ts";
import { MAX_CHANNEL_ITEMS } from "./channel.ts";
import { ClusterEvents, MAX_EVENT_READERS } from "./cluster_events.ts";

Deno.test("rule 8: only so many follow the events of a cluster, and one who does not keep up is cut off", async () => {
  const events = new ClusterEvents(() => 1);
  const end = new AbortController();
  const readers = Array.from({ length: MAX_EVENT_READERS }, () => events.watch(end.signal));
  const waiting = readers.map((reader) => reader.next());
  assert.equal(events.readers, MAX_EVENT_READERS);
  await assert.rejects(
    events.watch(end.signal).next(),
    (error) => error instanceof RuntimeError && error.code === "exhausted",
  );
  events.emit("n1", { case: "note", value: "0" });
  for (const { value } of await Promise.all(waiting)) assert.equal(value?.event?.value, "0");

  // The first one reads no more; the others are ended.
  const [slow, ...others] = readers;
  await Promise.all(others.map((reader) => reader.return(undefined)));
  assert.equal(events.readers, 1);
  for (let n = 0; n <= MAX_CHANNEL_ITEMS; n++) events.emit("n1", { case: "note", value: String(n) });
  await assert.rejects(slow.next(), /^RuntimeError: Cannot follow events: the reader fell too far behind$/);
  assert.equal(events.readers, 0);
  assert.equal(events.cutOff, 1);
});
