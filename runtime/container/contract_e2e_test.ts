import { engineContract } from "../testing/engine_contract.ts";
import { EngineBench } from "./testing.ts";
import { containerdVersions } from "../../tests/support/containerd_versions.ts";

for (const { name, binDir } of await containerdVersions()) {
  engineContract(`containerd ${name}`, async () => {
    const bench = await EngineBench.start({ binDir });
    return {
      engine: bench.engine,
      id: () => bench.id(),
      spec: (id, options) => bench.spec(id, options),
      async crash(id) {
        const { pid } = await bench.engine.get(id);
        const exited = bench.client.tasks.wait({ containerId: id }, { timeoutMs: 60_000 });
        Deno.kill(pid, "SIGKILL");
        await exited;
      },
      async exhaustMemory(id) {
        // The kernel drops a signal that the init process does not yet catch.
        const script =
          "until grep -q 'SigCgt:.*[2367abef]..$' /proc/1/status; do sleep 0.05; done; kill -USR1 1";
        await using session = await bench.engine.exec(id, { args: ["sh", "-c", script] });
        await session.exitCode;
      },
      restartContainerd: () => bench.containerd.restart(),
      [Symbol.asyncDispose]: () => bench[Symbol.asyncDispose](),
    };
  });
}
