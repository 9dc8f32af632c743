import assert from "node:assert/strict";
import { startContainerd } from "../../tests/support/containerd.ts";
import { containerdVersions } from "../../tests/support/containerd_versions.ts";

for (const { name, binDir } of await containerdVersions()) {
  Deno.test(`containerd ${name} loads all of its configuration, and nothing of Kubernetes`, async () => {
    await using containerd = await startContainerd({ binDir });
    const { plugins } = await containerd.client().introspection.plugins({});
    const describe = ({ type, id, initErr }: typeof plugins[number]) =>
      `${type}/${id} ${initErr?.message ?? ""}`;
    // What does not suit this kernel or file system is skipped.
    const failed = plugins.filter(({ initErr }) => initErr !== undefined && !/skip/.test(initErr.message));
    assert.deepEqual(failed.map(describe), []);
    assert.deepEqual(plugins.map(describe).filter((text) => /cri|nri|podsandbox/.test(text)), []);
  });
}
