import { printable } from "./values.ts";

const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** A time with its unit, `500ms`, `30s`, `5m` or `1h`, in milliseconds. Throws an Error outside its bounds. */
export function parseDuration(text: string, bounds: { minMs: number; maxMs: number }): number {
  const [, digits, unit] = /^([0-9]{1,9})(ms|s|m|h)$/.exec(text) ?? [];
  if (digits === undefined) {
    throw new Error(`"${printable(text)}" is not a time such as 500ms, 30s, 5m or 1h`);
  }
  const ms = Number(digits) * UNITS_MS[unit];
  if (ms < bounds.minMs || ms > bounds.maxMs) {
    throw new Error(
      `"${printable(text)}" is not between ${bounds.minMs}ms and ${bounds.maxMs / UNITS_MS.h}h`,
    );
  }
  return ms;
}
