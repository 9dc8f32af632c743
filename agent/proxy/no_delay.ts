import { openCLibrary } from "./c_library.ts";

/** Of `setsockopt(2)` on Linux. */
const IPPROTO_TCP = 6, TCP_NODELAY = 1;
/** In `/proc/net/tcp`. */
const LISTENING = "0A";

const SYMBOLS = {
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
} as const;

/**
 * Turns Nagle's algorithm off for every connection that will be accepted on this process's listeners of that port: on Linux a
 * connection inherits it. Deno has no way to do that for a TLS listener or its connections, and with Nagle the end of a
 * response waits for the client's delayed acknowledgement, up to 40 ms. Throws an Error when it cannot be done.
 */
export function setNoDelayOnListeners(port: number): void {
  const inodes = listeningInodes(port);
  if (inodes.size === 0) throw new Error(`Cannot find the listeners of port "${port}": none in /proc/net`);
  using opened = new DisposableStack();
  const library = opened.adopt(openCLibrary(SYMBOLS), (library) => library.close());
  const on = new Uint8Array(new Int32Array([1]).buffer);
  let found = 0;
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    const inode = /^socket:\[(\d+)\]$/.exec(linkOf(name))?.[1];
    if (inode === undefined || !inodes.has(inode)) continue;
    found++;
    if (library.symbols.setsockopt(Number(name), IPPROTO_TCP, TCP_NODELAY, on, on.length) !== 0) {
      throw new Error(`Cannot set TCP_NODELAY on port "${port}": setsockopt failed`);
    }
  }
  if (found === 0) {
    throw new Error(`Cannot find the listeners of port "${port}": they are not this process's`);
  }
}

/** Listens with TLS, without Nagle's algorithm where that can be had; where not, says so on standard error. */
export function listenTls(options: Deno.ListenTlsOptions & Deno.TlsCertifiedKeyPem): Deno.TlsListener {
  const listener = Deno.listenTls(options);
  try {
    setNoDelayOnListeners(listener.addr.port);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    console.error(`proxy: TLS answers may end up to 40 ms late: ${reason}`);
  }
  return listener;
}

/** Sockets that listen on that port, of whichever process; they stand before all others in these files. */
function listeningInodes(port: number): Set<string> {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const inodes = new Set<string>();
  for (const file of ["/proc/self/net/tcp", "/proc/self/net/tcp6"]) {
    for (const line of Deno.readTextFileSync(file).split("\n").slice(1)) {
      const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
      if (state !== LISTENING) break;
      if (local.endsWith(suffix)) inodes.add(inode);
    }
  }
  return inodes;
}

function linkOf(fd: string): string {
  try {
    return Deno.readLinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return ""; // closed meanwhile
  }
}
