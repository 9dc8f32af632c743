import { RuntimeError } from "../errors.ts";

/** Sent to stop a container whose image names no signal. */
export const DEFAULT_STOP_SIGNAL = 15;

const NAMES =
  ("HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG " +
    "XCPU XFSZ VTALRM PROF WINCH IO PWR SYS").split(" ");

/** First and last real-time signal as the C libraries number them. */
const SIGRTMIN = 34;
const SIGRTMAX = 64;

/**
 * Number of a signal given as `SIGTERM`, `term`, `15` or `SIGRTMIN+3` (Linux on x86 and arm). Throws `invalid`.
 *
 * @example
 * ```ts
 * import { parseSignal } from "./signals.ts";
 * parseSignal("SIGQUIT"); // 3
 * ```
 */
export function parseSignal(text: string): number {
  const name = text.trim().toUpperCase().replace(/^SIG/, "");
  if (/^\d{1,2}$/.test(name) && Number(name) >= 1 && Number(name) <= SIGRTMAX) return Number(name);
  if (name === "POLL") return NAMES.indexOf("IO") + 1;
  const index = NAMES.indexOf(name);
  if (index >= 0) return index + 1;
  const realTime = /^RTM(IN|AX)(?:([+-])(\d{1,2}))?$/.exec(name);
  if (realTime) {
    const [, end, sign, offset = "0"] = realTime;
    const number = (end === "IN" ? SIGRTMIN : SIGRTMAX) + (sign === "-" ? -1 : 1) * Number(offset);
    if (number >= SIGRTMIN && number <= SIGRTMAX) return number;
  }
  throw new RuntimeError("invalid", `Cannot use stop signal "${text.slice(0, 32)}": there is no such signal`);
}
