import assert from "node:assert/strict";
import { HostSpecBuilder } from "./builder.ts";
import { readUserFiles } from "./rootfs.ts";
import { Xattr } from "./xattr.ts";

Deno.test("many reads of an image's users load the C library once", async () => {
  const dir = await Deno.makeTempDir({ prefix: "hypercore-oci-" });
  const { dlopen } = Deno;
  let loads = 0;
  Deno.dlopen = ((...args: Parameters<typeof dlopen>) => {
    loads++;
    return dlopen(...args);
  }) as typeof dlopen;
  try {
    await Deno.mkdir(`${dir}/etc`);
    await Deno.writeTextFile(`${dir}/etc/passwd`, "app:x:1000:1000::/:/bin/sh\n");
    using xattr = new Xattr();
    const mounts = [{ type: "bind", source: dir, options: [] }];
    const specs = new HostSpecBuilder({ dir: `${dir}/specs`, containerdNamespace: "test", xattr });
    for (let i = 0; i < 3; i++) {
      assert.match((await readUserFiles(mounts, { isNeeded: true, xattr })).passwd, /^app:/);
      const container = {
        ...{
          id: `c${i}`,
          image: "test",
          milliCpus: 1000,
          memoryBytes: 1 << 24,
          pidsLimit: 10,
          hostname: "c",
        },
        ...{ env: [], args: ["/bin/true"], tty: false, stdin: false, labels: {} },
        runtime: { name: "runc", options: {} },
      };
      const image = { name: "test", config: { User: "app" } };
      await specs.build({ container, image, mounts, netnsPath: "/run/netns/none" });
    }
    assert.equal(loads, 1);
  } finally {
    Deno.dlopen = dlopen;
    await Deno.remove(dir, { recursive: true });
  }
});
