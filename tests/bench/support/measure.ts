/** What wrk saw. */
export interface WrkResult {
  requests: number;
  requestsPerSecond: number;
  p50Ms: number;
  p99Ms: number;
}

/** Time wrk may take beyond the measurement. */
const WRK_GRACE_SECONDS = 20;
/** Of the kernel's accounting (USER_HZ), the same on every Linux. */
const TICKS_PER_SECOND = 100;

/** Loads `url` with wrk. Throws when it cannot run, or when an answer was not 2xx or a connection failed. */
export async function wrk(
  url: string,
  { seconds, connections, headers = [], timeoutSeconds = 2 }: {
    seconds: number;
    connections: number;
    /** An answer that takes longer is a failure. */
    timeoutSeconds?: number;
    /** Further header lines of each request. */
    headers?: readonly string[];
  },
): Promise<WrkResult> {
  const { stdout, stderr } = await new Deno.Command("wrk", {
    args: [
      ...["-t1", `-c${connections}`, `-d${seconds}`, "--latency", `--timeout=${timeoutSeconds}s`],
      ...["Host: app.test", ...headers].flatMap((header) => ["-H", header]),
      url,
    ],
    signal: AbortSignal.timeout((seconds + WRK_GRACE_SECONDS) * 1000),
  }).output();
  const text = new TextDecoder().decode(stdout);
  const number = (pattern: RegExp) => Number(pattern.exec(text)?.[1]);
  const percentile = (share: number) => {
    const [, value, unit] = new RegExp(`${share}%\\s+([\\d.]+)(us|ms|s)`).exec(text) ?? [];
    return Number(value) * { us: 0.001, ms: 1, s: 1000 }[unit as "us" | "ms" | "s"];
  };
  const requests = number(/(\d+) requests in/);
  if (/Non-2xx|Socket errors/.test(text) || Number.isNaN(requests)) {
    throw new Error(`Cannot measure "${url}": ${text}${new TextDecoder().decode(stderr)}`);
  }
  return {
    requests,
    requestsPerSecond: number(/Requests\/sec:\s+([\d.]+)/),
    p50Ms: requests > 0 ? percentile(50) : Infinity,
    p99Ms: requests > 0 ? percentile(99) : Infinity,
  };
}

/** Resident memory of a process. */
export function rssMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(Deno.readTextFileSync(`/proc/${pid}/status`))?.[1]) / 1024;
}

/** Processor time a process has used so far, all threads, to 10 ms. */
export function cpuMs(pid: number): number {
  // Fields 14 and 15 of proc(5) stat; the name before them may hold anything but ends with the last parenthesis.
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 1000 / TICKS_PER_SECOND;
}
