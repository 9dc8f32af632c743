import assert from "node:assert/strict";
import { MsgpackReader } from "../codec/msgpack_reader.ts";
import { encodeUserEvent } from "../codec/serf_messages.ts";
import { utf8 } from "../codec/text.ts";
import { CommonEvents, receivedEvent } from "./common_events.ts";
import { UserEvents } from "./user_events.ts";

Deno.test("an event that came with a whole state has the same bytes as the one that came by itself", () => {
  const common = new CommonEvents();
  const event = { ltime: 3, name: "e", payload: utf8("payload"), coalesce: false };
  const bytes = encodeUserEvent(event);
  const message = () => {
    const reader = new MsgpackReader().reset(bytes, 1);
    return receivedEvent(common, reader, { bytes, start: 0, end: bytes.length }).message;
  };
  const { payload } = message();
  assert.equal(message().payload, payload);
  assert.equal(common.shared({ ...event, payload: utf8("payload") }).payload, payload);
  assert.deepEqual(common.shared({ ...event, payload: utf8("another") }).payload, utf8("another"));
  assert.equal(common.shared({ ...event, payload: undefined }).payload, undefined);
});

Deno.test("what cores of one process remember alike is kept once, as it is told in push/pulls", () => {
  const common = new CommonEvents();
  const [one, other, apart] = [new UserEvents(8, common), new UserEvents(8, common), new UserEvents(8)];
  for (const events of [one, other, apart]) {
    for (const ltime of [1, 2]) {
      events.accept({ ltime, name: "e", payload: utf8(`${ltime}`), coalesce: false });
    }
  }
  one.accept({ ltime: 2, name: "f", payload: undefined, coalesce: false });
  const encoded = (events: UserEvents) => events.slots().map((slot) => slot.encoded!);
  assert.equal(encoded(one)[0], encoded(other)[0]);
  assert.notDeepEqual(encoded(one)[1], encoded(other)[1]);
  assert.deepEqual(encoded(other), encoded(apart));
});
