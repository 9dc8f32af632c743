/** A containerd to test against. */
export interface ContainerdVersion {
  /** The Debian suite it is from; "installed" is the machine's own. */
  name: string;
  /** Folder with its binaries; absent for the machine's own. */
  binDir?: string;
}

/**
 * The machine's own containerd and those that `tools/containerd-versions.sh` can fetch from later Debian suites. One
 * that can't be had is left out, and the script says so on the test's stderr. `HYPERCORE_TEST_CONTAINERD=installed`
 * keeps to the machine's own, or to the suites it lists.
 */
export async function containerdVersions(): Promise<ContainerdVersion[]> {
  const wanted = Deno.env.get("HYPERCORE_TEST_CONTAINERD")?.split(",");
  const script = new URL("../../tools/containerd-versions.sh", import.meta.url).pathname;
  const versions: ContainerdVersion[] = [{ name: "installed" }];
  if (wanted === undefined || wanted.some((name) => name !== "installed")) {
    const { stdout } = await new Deno.Command(script, { stderr: "inherit" }).output();
    for (const line of new TextDecoder().decode(stdout).split("\n")) {
      const [name, binDir] = line.split(" ");
      if (binDir) versions.push({ name, binDir });
    }
  }
  return versions.filter(({ name }) => wanted?.includes(name) ?? true);
}
