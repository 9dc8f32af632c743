import { INSPECTOR_PORT } from "../../e2e/live_agent.ts";

/**
 * Has an agent that runs with its inspector on collect its garbage, from inside its network, and prints what is left:
 * bytes of its JavaScript heap, and of what that holds outside of the heap.
 */

/** One collection frees what the finalizers of the one before have let go of. */
const COLLECTIONS = 3;

const [target] = await (await fetch(`http://127.0.0.1:${INSPECTOR_PORT}/json`)).json();
const socket = new WebSocket(target.webSocketDebuggerUrl);
const answers = new Map<number, (result: Record<string, { value: string }>) => void>();
socket.onmessage = ({ data }) => {
  const { id, result } = JSON.parse(data);
  answers.get(id)?.(result);
};
await new Promise((resolve) => socket.onopen = resolve);
let calls = 0;
const call = (method: string, params = {}) =>
  new Promise<Record<string, { value: string }>>((resolve) => {
    answers.set(++calls, resolve);
    socket.send(JSON.stringify({ id: calls, method, params }));
  });
await call("HeapProfiler.enable");
for (let i = 0; i < COLLECTIONS; i++) await call("HeapProfiler.collectGarbage");
await call("HeapProfiler.disable");
const expression = "(({ heapUsed, external }) => JSON.stringify({ heapUsed, external }))(Deno.memoryUsage())";
console.log((await call("Runtime.evaluate", { expression })).result.value);
socket.close();
