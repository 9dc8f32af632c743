import "./worker.ts";

// A proxy worker that crashes when a test says so.
self.addEventListener("message", (event) => {
  if ((event as MessageEvent<{ crash?: boolean }>).data.crash) throw new Error("crash asked for by the test");
});
