/** Highest incarnation that fits the wire. */
export const MAX_INCARNATION = 0xffff_ffff;
/** From here on incarnations are believed only in small steps, so that no one word uses up what is left of them. */
const SCARCE = 0xff00_0000;
const SCARCE_STEP = 64;
/** What a node says of itself is believed a little longer, so that it can contradict whatever is believed of others. */
const OWN_WORD = 0x1_0000;

/**
 * Whether an incarnation is to be believed of a node that was last known with `known`; `own`: it says so itself. Nobody contradicts four thousand
 * million times: one near the end is damage or malice, and a node that had to go beyond it could never speak again.
 */
export function isPlausible(incarnation: number, options: { known: number; own: boolean }): boolean {
  return incarnation < SCARCE + (options.own ? OWN_WORD : 0) || incarnation <= options.known + SCARCE_STEP;
}
