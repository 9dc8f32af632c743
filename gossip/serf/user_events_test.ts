import assert from "node:assert/strict";
import { MsgpackReader } from "../codec/msgpack_reader.ts";
import { decodeSerfPushPull, emptySerfPushPull, encodeSerfPushPull } from "../codec/serf_push_pull.ts";
import { hashBytes, NO_BYTES, utf8 } from "../codec/text.ts";
import { MAX_EVENT_DIGESTS, MAX_EVENTS_PER_TIME, UserEvents } from "./user_events.ts";

const event = (payload: Uint8Array, name = "e") => ({ ltime: 1, name, payload, coalesce: false });

Deno.test("events of one Lamport time are told apart by name and payload, also where their hashes are the same", () => {
  const events = new UserEvents(512);
  const [one, other] = [new Uint8Array([1, 0]), new Uint8Array([0, 31])];
  assert.equal(hashBytes(one, 0, 2), hashBytes(other, 0, 2));
  const verdicts = [one, other, one, other].map((payload) => events.accept(event(payload)));
  assert.deepEqual(verdicts, ["new", "new", "known", "known"]);
  assert.deepEqual([1, 2].map(() => events.accept(event(one, "f"))), ["new", "known"]);
});

Deno.test("thousands of events of one Lamport time are told apart, and each is taken once", () => {
  const [one, other] = [new UserEvents(512), new UserEvents(512)];
  const payloads = Array.from({ length: 4_500 }, (_, i) => utf8(`state of node ${i}`));
  for (const verdict of ["new", "known"]) {
    for (const payload of payloads) assert.equal(one.accept(event(payload)), verdict);
    for (const payload of payloads.toReversed()) assert.equal(other.accept(event(payload)), verdict);
  }
  assert.equal(one.accept(event(payloads[4_499], "f")), "new");
  const [{ events }] = one.slots();
  assert.equal(events.length, MAX_EVENTS_PER_TIME, "a push/pull tells of no more than this");
  for (const { name, payload } of events) assert.equal(other.accept(event(payload!, name)), "known");
});

Deno.test("digests of events that are too old give their room to others", () => {
  const events = new UserEvents(2);
  const fill = (ltime: number) => {
    const verdicts = Array.from(
      { length: MAX_EVENTS_PER_TIME + MAX_EVENT_DIGESTS + 1 },
      (_, i) => events.accept({ ltime, name: "e", payload: utf8(`${i}`), coalesce: false }),
    );
    return verdicts.indexOf("too-many");
  };
  const room = MAX_EVENTS_PER_TIME + MAX_EVENT_DIGESTS;
  assert.deepEqual([fill(1), fill(2), fill(3)], [room, MAX_EVENTS_PER_TIME, room]);
});

const hashOf = (payload = NO_BYTES) => hashBytes(payload, 0, payload.length);

/** The events of another node's push/pull that are not known here alike. */
function told(other: UserEvents, own: UserEvents): string[] {
  own.slots();
  const message = { ...emptySerfPushPull(), events: other.slots() };
  const reader = new MsgpackReader().reset(encodeSerfPushPull(message), 1);
  const { events } = decodeSerfPushPull(reader, own.known());
  return events.flatMap((slot) => slot.events.map(({ name }) => `${slot.ltime}: ${name}`));
}

Deno.test("of a push/pull only those Lamport times are decoded of which it says something else", () => {
  const [one, other] = [new UserEvents(8), new UserEvents(8)];
  const take = (events: UserEvents, ltime: number, name = "e") => {
    const verdict = events.accept({ ltime, name, payload: utf8(`payload of ${ltime}`), coalesce: false });
    assert.equal(verdict, "new");
  };
  // They come in another order, and go round.
  for (const ltime of [3, 5, 6, 9, 10]) take(one, ltime);
  for (const ltime of [10, 9, 6, 5, 3]) take(other, ltime);
  assert.deepEqual(told(other, one), []);
  take(other, 4);
  assert.deepEqual(told(other, one), ["4: e"]);
  // The one after a gap is read to find the place again.
  assert.deepEqual(told(one, other), ["5: e"]);
  take(other, 6, "f");
  assert.deepEqual(told(other, one), ["4: e", "6: e", "6: f"]);
  take(one, 6, "f");
  assert.deepEqual(told(other, one), ["4: e"]);
  // Within a time they come in another order as well.
  for (const name of ["g", "h"]) take(one, 9, name);
  for (const name of ["h", "g"]) take(other, 9, name);
  assert.deepEqual(told(other, one), ["4: e"]);
  // A later time took an earlier one's place.
  take(other, 13);
  assert.deepEqual(told(other, one), ["4: e", "13: e"]);
  assert.deepEqual(told(one, other), ["5: e"]);
});

Deno.test("what is kept of a push/pull says the same as what is encoded anew", () => {
  const events = new UserEvents(8);
  for (let ltime = 1; ltime < 20; ltime++) {
    events.accept({ ltime, name: "e", payload: utf8("x".repeat(ltime)), coalesce: false });
    events.accept({ ltime, name: "f", payload: undefined, coalesce: false });
    const slots = events.slots();
    const anew = slots.map(({ ltime, events }) => ({
      ltime,
      events: events.toSorted((a, b) => hashOf(a.payload) - hashOf(b.payload)),
    }));
    const message = { ...emptySerfPushPull(), eventLTime: ltime };
    assert.deepEqual(
      encodeSerfPushPull({ ...message, events: slots }),
      encodeSerfPushPull({ ...message, events: anew }),
    );
  }
});
