/** SIGTERM: what an image that names no stop signal gets. */
export const DEFAULT_STOP_SIGNAL = 15;

/** Highest signal number of Linux. */
const MAX_SIGNAL = 64;

/** Numbers on x86-64, arm64 and riscv64 (signal(7)). */
const SIGNALS: Readonly<Record<string, number>> = Object.fromEntries(
  ("HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG " +
    "XCPU XFSZ VTALRM PROF WINCH IO PWR SYS").split(" ").map((name, index) => [name, index + 1]),
);

/** glibc leaves the first two real-time signals to itself: RTMIN is 34. */
const RTMIN = 34;

/**
 * The number of an image's `StopSignal`: "SIGQUIT", "QUIT", "3", "SIGRTMIN+3". What names no signal counts as none:
 * the image's author can't be asked, and the container can be stopped all the same.
 */
export function stopSignalNumber(text: string | undefined): number {
  const name = (text ?? "").trim().toUpperCase().replace(/^SIG/, "");
  const realTime = /^RT(MIN|MAX)(?:([+-])(\d{1,2}))?$/.exec(name);
  let number = SIGNALS[name] ?? (/^\d{1,2}$/.test(name) ? Number(name) : 0);
  if (realTime !== null) {
    number = (realTime[1] === "MIN" ? RTMIN : MAX_SIGNAL) +
      Number(`${realTime[2] ?? "+"}${realTime[3] ?? "0"}`);
  }
  return number >= 1 && number <= MAX_SIGNAL ? number : DEFAULT_STOP_SIGNAL;
}
