import assert from "node:assert/strict";
import { AbortScope } from "./abort_scope.ts";

/** A source that counts who listens to it. */
function countedSource(): { controller: AbortController; listeners: () => number } {
  const controller = new AbortController();
  const { signal } = controller;
  let count = 0;
  const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)];
  signal.addEventListener = (...args: unknown[]) => {
    count++;
    (add as (...args: unknown[]) => void)(...args);
  };
  signal.removeEventListener = (...args: unknown[]) => {
    count--;
    (remove as (...args: unknown[]) => void)(...args);
  };
  return { controller, listeners: () => count };
}

Deno.test("a scope aborts with the first of its sources and for its reason", () => {
  const [first, second] = [new AbortController(), new AbortController()];
  using scope = new AbortScope([undefined, first.signal, second.signal], { timeoutMs: 60_000 });
  assert(!scope.signal.aborted);
  second.abort("second");
  first.abort("first");
  assert.equal(scope.signal.reason, "second");
});

Deno.test("a scope of a source that has aborted is aborted from the start", () => {
  using scope = new AbortScope([new AbortController().signal, AbortSignal.abort("before")]);
  assert.equal(scope.signal.reason, "before");
});

Deno.test("a scope aborts when its time is up", async () => {
  using scope = new AbortScope([], { timeoutMs: 1 });
  await new Promise((resolve) => scope.signal.addEventListener("abort", resolve));
  assert.equal(scope.signal.reason.name, "TimeoutError");
});

Deno.test("a scope leaves no listener and no timer, whether it was disposed, aborted or timed out", async () => {
  const source = countedSource();
  for (let i = 0; i < 3; i++) {
    using scope = new AbortScope([source.controller.signal], { timeoutMs: 60_000 });
    assert.equal(source.listeners(), 1);
    void scope;
  }
  assert.equal(source.listeners(), 0);
  {
    using scope = new AbortScope([source.controller.signal], { timeoutMs: 1 });
    await new Promise((resolve) => scope.signal.addEventListener("abort", resolve));
    assert.equal(source.listeners(), 0);
  }
  const late = new AbortScope([source.controller.signal]);
  late[Symbol.dispose]();
  source.controller.abort();
  assert(!late.signal.aborted);
});
