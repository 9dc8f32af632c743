import { engineContract } from "./engine_contract.ts";
import { MemoryEngine } from "./memory_engine.ts";
import type { ContainerSpec } from "../engine.ts";

engineContract("memory", () => {
  const engine = new MemoryEngine();
  engine.images = new Set(["test"]);
  let ids = 0;
  return Promise.resolve({
    engine,
    id: () => `c${ids++}`,
    spec: (id: string, options?: Partial<ContainerSpec>): ContainerSpec => ({
      id,
      image: "test",
      milliCpus: 1000,
      memoryBytes: 64 << 20,
      pidsLimit: 64,
      env: [],
      args: [],
      tty: false,
      stdin: false,
      hostname: id,
      runtime: { name: "runc", options: {} },
      labels: {},
      ...options,
    }),
    crash: (id: string) => Promise.resolve(engine.exit(id, 137)),
    exhaustMemory: (id: string) => Promise.resolve(engine.oom(id)),
    restartContainerd() {
      engine.setReachable(false);
      engine.setReachable(true);
      return Promise.resolve();
    },
    [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
  });
});
