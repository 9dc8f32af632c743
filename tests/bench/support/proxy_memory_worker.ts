import "../../../agent/proxy/worker.ts";
import { collectGarbage, MEMORY_CHANNEL } from "./collect_garbage.ts";

// A proxy worker that collects its garbage when it is asked to, and says what is left.
const channel = new BroadcastChannel(MEMORY_CHANNEL);
channel.onmessage = async ({ data }) => {
  if (data === "collect") channel.postMessage(await collectGarbage());
};
