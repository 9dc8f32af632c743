/** Lowest port that is given: what is below are well-known ones. */
const LOWEST = 10_000;

/**
 * A port that nobody listens on, neither TCP nor UDP, on that IP address. It is below those that the system gives out by itself, for connections and
 * listeners on port 0, so that of all that runs beside a test nobody takes it before the test does.
 */
export function freePort(hostname = "127.0.0.1"): number {
  for (;;) {
    const port = LOWEST + Math.floor(Math.random() * (firstEphemeral() - LOWEST));
    try {
      using _tcp = Deno.listen({ hostname, port });
      Deno.listenDatagram({ transport: "udp", hostname, port }).close();
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}

function firstEphemeral(): number {
  return Number(Deno.readTextFileSync("/proc/sys/net/ipv4/ip_local_port_range").split("\t")[0]);
}
