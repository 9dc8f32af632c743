/** An agent as a process of its own, on an image made by hand: what agent_e2e_test.ts starts. */
import { runAgent } from "../../agent/agent.ts";
import type { Images } from "../../agent/api/services.ts";
import { testImages } from "../../runtime/container/testing.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import { silentLog } from "../../runtime/log.ts";

const [dir, namespace] = Deno.args;
const stopping = new AbortController();
Deno.addSignalListener("SIGTERM", () => stopping.abort());
const refuse = () => Promise.reject(new RuntimeError("precondition", "Cannot change the images of a test"));
const fixedImages: Images = { pull: refuse, load: refuse, remove: refuse, list: () => Promise.resolve([]) };

await runAgent({
  nodeName: "n1",
  dataDir: `${dir}/data`,
  stateDir: `${dir}/state`,
  containerdSocket: `${dir}/data/containerd.sock`,
  containerdNamespace: namespace,
  grpcBindAddr: { host: "127.0.0.1", port: 8000 },
  httpBindAddr: { host: "127.0.0.1", port: 8001 },
  baseUrl: "example.com",
  proxyBindHosts: ["::"],
  proxyWorkers: 1,
  insecure: false,
  cniPath: ["/usr/lib/cni"],
  subnet: "192.168.127.0/24",
  registryMirrors: {},
  insecureRegistries: [],
  logMaxBytes: 1 << 20,
  logMaxFiles: 2,
  logLevel: "info",
  logFormat: "text",
}, {
  signal: stopping.signal,
  log: silentLog,
  version: "test",
  openImages: async ({ client }) => ({
    ...fixedImages,
    ...await testImages(client),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  }),
});
Deno.exit(0);
