import assert from "node:assert/strict";
import { utf8 } from "../codec/text.ts";
import { EventSubjects, MAX_SUBJECTS } from "./event_subjects.ts";

const event = (ltime: number, name: string) => ({ ltime, name, payload: utf8("x") });

Deno.test("events about the same thing share a subject; an older one than was heard of is not sent on", () => {
  const subjects = new EventSubjects(({ name }) => name.startsWith("beat") ? name : undefined);
  assert.equal(subjects.take(event(1, "deploy")), undefined);
  const first = subjects.take(event(1, "beat-a"));
  assert.ok(first);
  assert.equal(subjects.take(event(3, "beat-a")), first);
  assert.equal(subjects.take(event(2, "beat-a")), false);
  assert.notEqual(subjects.take(event(1, "beat-b")), first);
});

Deno.test("subjects are bounded", () => {
  const subjects = new EventSubjects(({ name }) => name);
  for (let i = 0; i < MAX_SUBJECTS + 10; i++) subjects.take(event(i, `s${i}`));
  assert.equal(subjects.size, MAX_SUBJECTS);
  assert.equal(new EventSubjects(undefined).take(event(1, "x")), undefined);
});
