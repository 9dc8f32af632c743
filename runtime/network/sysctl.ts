/** Kernel settings of the network namespace the caller runs in; tests bring their own. */
export type WriteSysctl = (name: string, value: string) => Promise<void>;

/** Writes `/proc/sys/net/<name>`; a setting this kernel does not have (no IPv6) is left out. */
export const writeSysctl: WriteSysctl = async (name, value) => {
  const path = `/proc/sys/net/${name}`;
  try {
    if ((await Deno.readTextFile(path)).trim() !== value) await Deno.writeTextFile(path, value);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
};

/** What the host's end of a guest's veth is set to: no IPv6 to the guest, no spoofing, no redirects. */
export function vethSettings(hostInterface: string): [name: string, value: string][] {
  return [
    [`ipv6/conf/${hostInterface}/disable_ipv6`, "1"],
    [`ipv6/conf/${hostInterface}/accept_ra`, "0"],
    [`ipv4/conf/${hostInterface}/rp_filter`, "1"],
    [`ipv4/conf/${hostInterface}/accept_redirects`, "0"],
    [`ipv4/conf/${hostInterface}/send_redirects`, "0"],
  ];
}
