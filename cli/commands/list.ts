import { apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { exitCode } from "../exit.ts";
import type { Io } from "../io.ts";
import { workloadJson } from "../json.ts";
import type { ClientOptions } from "../options.ts";
import { formatAge, formatTable } from "../table.ts";

/** `hypercore list`. */
export async function list(options: ClientOptions & { json?: true; quiet?: true }, io: Io): Promise<number> {
  const api = connectApi(options, io);
  const { states } = await api.cluster.list({}, { timeoutMs: CALL_TIMEOUT_MS }).catch((error) => {
    throw apiError("Cannot list workloads", api, error);
  });
  const workloads = states.flatMap((state) =>
    state.workloads.map((each) => workloadJson(each, state.node?.name || state.node?.id || ""))
  )
    .sort((a, b) => a.id < b.id ? -1 : 1);
  if (options.json) {
    await io.out(`${JSON.stringify(workloads, null, 2)}\n`);
  } else if (options.quiet) {
    await io.out(workloads.map(({ id }) => `${id}\n`).join(""));
  } else {
    const now = Date.now();
    await io.out(formatTable(
      ["ID", "NAME", "IMAGE", "NODE", "STATUS", "PORTS", "RESTARTS", "AGE", "URL"],
      workloads.map((each) => [
        each.id,
        each.name,
        each.image,
        each.node,
        each.status,
        Object.entries(each.ports).map(([host, container]) => `${host}:${container}`).join(","),
        String(each.restarts),
        each.createdAt === undefined ? "" : formatAge(now - Date.parse(each.createdAt)),
        each.url,
      ]),
    ));
  }
  return exitCode.ok;
}
