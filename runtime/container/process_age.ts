/** Clock ticks a second in /proc; the kernel's interface is fixed at this. */
const TICKS_PER_SECOND = 100;
/** Field of /proc/PID/stat with the start in ticks since boot (proc(5)), counted after the command's name. */
const START_FIELD = 19;

/**
 * How long a process has run, milliseconds, by the kernel's clock that runs on through suspension and that nobody can
 * set (CLOCK_BOOTTIME): right also when the time of day was changed meanwhile. Nothing when there is no such process.
 */
export async function processAgeMs(pid: number): Promise<number | undefined> {
  try {
    const [stat, uptime] = await Promise.all([
      Deno.readTextFile(`/proc/${pid}/stat`),
      Deno.readTextFile("/proc/uptime"),
    ]);
    return parseAgeMs(stat, uptime);
  } catch {
    return undefined; // it has ended
  }
}

/** The same from the texts of /proc/PID/stat and /proc/uptime; nothing when they are none. */
export function parseAgeMs(stat: string, uptime: string): number | undefined {
  // The name, in parentheses, may hold anything.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const startMs = Number(fields[START_FIELD]) * 1000 / TICKS_PER_SECOND;
  const nowMs = Number(uptime.split(" ")[0]) * 1000;
  const ageMs = Math.round(nowMs - startMs);
  return Number.isFinite(ageMs) ? Math.max(0, ageMs) : undefined;
}
