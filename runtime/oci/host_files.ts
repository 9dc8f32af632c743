import type { HostFiles } from "./mounts.ts";
import { guestResolvConf, UPSTREAM_RESOLV_CONF } from "./resolv_conf.ts";

/** Most bytes read of a resolv.conf. */
const MAX_RESOLV_CONF_BYTES = 64 << 10;

/** Text of /etc/hosts for a guest. */
export function hostsFile(options: { hostname: string; address?: string }): string {
  const { hostname, address } = options;
  const names = hostname.includes(".") ? `${hostname} ${hostname.split(".")[0]}` : hostname;
  return [
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    `${address ?? "127.0.1.1"}\t${names}`,
  ]
    .join("\n") + "\n";
}

/** Where {@linkcode writeHostFiles} puts them. */
export function hostFilePaths(dir: string): HostFiles {
  return { resolvConf: `${dir}/resolv.conf`, hosts: `${dir}/hosts`, hostname: `${dir}/hostname` };
}

/**
 * Writes resolv.conf, hosts and hostname of a container into a folder of its own, which must outlive the container.
 * The host's resolver configuration is read anew each time.
 */
export async function writeHostFiles(
  options: { dir: string; hostname: string; address?: string },
): Promise<void> {
  const { dir } = options;
  const files = hostFilePaths(dir);
  await Deno.mkdir(dir, { recursive: true, mode: 0o711 });
  const candidates = await Promise.all(["/etc/resolv.conf", UPSTREAM_RESOLV_CONF].map(readIfThere));
  await write(files.resolvConf, guestResolvConf(candidates));
  await write(files.hosts, hostsFile(options));
  await write(files.hostname, `${options.hostname}\n`);
}

/** Readable by every user of the container, whatever the agent's umask. */
async function write(path: string, text: string): Promise<void> {
  await Deno.writeTextFile(path, text);
  await Deno.chmod(path, 0o644);
}

async function readIfThere(path: string): Promise<string> {
  try {
    return (await Deno.readTextFile(path)).slice(0, MAX_RESOLV_CONF_BYTES);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}
