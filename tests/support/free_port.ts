/** Lowest port that is given: what is below are well-known ones. */
const LOWEST = 10_000;
const TABLES = ["tcp", "tcp6", "udp", "udp6"];

const given = new Set<number>();

/**
 * A port that is in no use, neither TCP's nor UDP's, on any address, and that was not given before. It is below those that
 * the system gives out by itself, for connections and listeners on port 0, so that of all that runs beside a test nobody
 * takes it before the test does. Nothing is bound to try it: a program that starts at that moment would hold the socket for
 * another while.
 */
export function freePort(): number {
  const used = usedPorts();
  const above = firstEphemeral();
  for (;;) {
    const port = LOWEST + Math.floor(Math.random() * (above - LOWEST));
    if (used.has(port) || given.has(port)) continue;
    given.add(port);
    return port;
  }
}

function usedPorts(): Set<number> {
  const lines = TABLES.flatMap((table) =>
    Deno.readTextFileSync(`/proc/self/net/${table}`).split("\n").slice(1)
  );
  // "  0: 0100007F:1F90 …": the local address, both in hexadecimal.
  return new Set(lines.map((line) => parseInt(line.trim().split(/\s+/)[1]?.split(":")[1], 16)));
}

function firstEphemeral(): number {
  return Number(Deno.readTextFileSync("/proc/sys/net/ipv4/ip_local_port_range").split("\t")[0]);
}
