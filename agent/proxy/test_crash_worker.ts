/// <reference lib="deno.worker" />
import "./worker.ts";

// A proxy worker that crashes when a test says so.
self.addEventListener("message", (event) => {
  if (event.data.crash) throw new Error("crash asked for by the test");
});
