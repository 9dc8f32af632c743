import type { Log } from "../runtime/log.ts";

const LEVELS = ["debug", "info", "warn", "error"] as const;

/** What {@linkcode agentLog} is told. */
export interface AgentLogOptions {
  level: typeof LEVELS[number];
  format: "text" | "json";
  /** Takes one encoded line. */
  write(line: Uint8Array): void;
  /** Milliseconds since the epoch; the system clock by default. */
  now?: () => number;
}

/** The agent's own log: one line a message, as text or JSON. Line ends in values are escaped. */
export function agentLog(options: AgentLogOptions): Log {
  const encoder = new TextEncoder();
  const now = options.now ?? Date.now;
  const at = (level: typeof LEVELS[number]) => {
    if (LEVELS.indexOf(level) < LEVELS.indexOf(options.level)) return () => {};
    return (message: string, fields: Record<string, unknown> = {}) => {
      const time = new Date(now()).toISOString();
      const line = options.format === "json"
        ? JSON.stringify({ time, level, message, ...plain(fields) })
        : `${time} ${level.padEnd(5)} ${message}${text(plain(fields))}`;
      options.write(encoder.encode(`${line}\n`));
    };
  };
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

function plain(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).map(([key, value]) => {
      if (value instanceof Error) return [key, value.message];
      return [key, typeof value === "bigint" ? String(value) : value];
    }),
  );
}

function text(fields: Record<string, unknown>): string {
  return Object.entries(fields).filter(([, value]) => value !== undefined).map(([key, value]) => {
    const shown = typeof value === "string" && /^[\x21-\x7e]+$/.test(value) && !value.includes('"')
      ? value
      : JSON.stringify(value);
    return ` ${key}=${shown}`;
  }).join("");
}
