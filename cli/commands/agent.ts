import { agentConfig } from "../agent_config.ts";
import type { AgentOptions } from "../agent_options.ts";
import { exitCode } from "../exit.ts";
import type { Io } from "../io.ts";
import { agentLog } from "../log.ts";
import { versionInfo } from "../version.ts";

/**
 * `hypercore agent`. The first SIGINT or SIGTERM ends it in order, the second at once; SIGHUP has it read its policy
 * again.
 */
export async function agent(address: string | undefined, options: AgentOptions, io: Io): Promise<number> {
  const config = agentConfig(address, options, Deno.hostname(), io.readTextFile);
  const log = agentLog({
    level: config.logLevel,
    format: config.logFormat,
    write: (line) => Deno.stderr.writeSync(line),
  });
  // Loaded only once the configuration is known to be right.
  const { runAgent } = await import("../../agent/agent.ts");
  const stopping = new AbortController();
  const stops = (["SIGINT", "SIGTERM"] as const).map((name) =>
    io.onSignal(name, () => {
      if (stopping.signal.aborted) Deno.exit(exitCode.failed);
      log.info("stopping", { signal: name });
      stopping.abort();
    })
  );
  // Listened to from the start: until then it would end the process.
  const reloads = new Set<() => void>();
  stops.push(io.onSignal("SIGHUP", () => {
    for (const reload of reloads) reload();
  }));
  try {
    await runAgent(config, {
      signal: stopping.signal,
      log,
      version: versionInfo().version,
      onReload(listener) {
        reloads.add(listener);
        return () => reloads.delete(listener);
      },
    });
    return exitCode.ok;
  } catch (error) {
    log.error("the agent failed", { error: error instanceof Error ? error.message : String(error) });
    return exitCode.failed;
  } finally {
    for (const stop of stops) stop();
  }
}
