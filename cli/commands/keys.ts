import { parseGossipKey } from "../../agent/membership/join_address.ts";
import { apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { CommandError, exitCode, UsageError } from "../exit.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";
import { formatTable } from "../table.ts";

/** Bytes of a new key. */
const KEY_BYTES = 32;

/** `hypercore keygen`. */
export async function keygen(options: { json: boolean }, io: Io): Promise<number> {
  const key = crypto.getRandomValues(new Uint8Array(KEY_BYTES)).toBase64();
  await io.out(options.json ? `${JSON.stringify({ key })}\n` : `${key}\n`);
  return exitCode.ok;
}

/** `hypercore keys show|list|install|use|remove|rotate [KEY]`. */
export async function keys(
  request: { operation: string; key: string | undefined },
  options: ClientOptions & { json?: true },
  io: Io,
): Promise<number> {
  const { operation, key = "" } = request;
  const needsKey = !["show", "list", "rotate"].includes(operation);
  if (operation !== "rotate" && needsKey !== (key !== "")) {
    throw new UsageError(needsKey ? `keys ${operation}: give the key` : `keys ${operation}: takes no key`);
  }
  if (key !== "") {
    try {
      parseGossipKey(key);
    } catch (error) {
      throw new UsageError(`keys ${operation}: ${(error as Error).message}`, { cause: error });
    }
  }
  const api = connectApi(options, io);
  const answer = await api.admin.manageKeys({ operation, key }, { timeoutMs: CALL_TIMEOUT_MS }).catch(
    (error) => {
      throw apiError(`Cannot ${operation} gossip keys`, api, error);
    },
  );
  const { members, answers, errors, step } = answer;
  if (options.json) {
    const list = answer.keys.map(({ key, nodes, primaryOn }) => ({ key, nodes, primaryOn }));
    await io.out(
      `${JSON.stringify({ members, answers, errors, keys: list, step: step || undefined }, null, 2)}\n`,
    );
  } else if (operation === "show") {
    const { gossipAddress } = await api.node.info({}, { timeoutMs: CALL_TIMEOUT_MS }).catch((error) => {
      throw apiError("Cannot ask the agent about itself", api, error);
    });
    await io.out(
      answer.keys.map((each) => `${each.key}${each.primaryOn > 0 ? " (primary)" : ""}\n`).join(""),
    );
    const primary = answer.keys.find((each) => each.primaryOn > 0);
    if (primary !== undefined) {
      await io.out(`join with: hypercore agent --join ${primary.key}@${gossipAddress}\n`);
    }
  } else {
    if (operation === "rotate") await io.out(`new key ${answer.keys[0]?.key ?? key}\n`);
    if (operation === "list") {
      await io.out(formatTable(
        ["KEY", "NODES", "PRIMARY ON"],
        answer.keys.map((each) => [each.key, `${each.nodes}/${members}`, `${each.primaryOn}/${members}`]),
      ));
    }
    await io.out(`${answers} of ${members} members answered\n`);
  }
  const failed = Object.entries(errors);
  if (failed.length === 0 && (operation === "show" || answers >= members)) return exitCode.ok;
  const reasons = failed.map(([node, reason]) => `${node}: ${reason}`);
  if (answers < members) reasons.push(`${members - answers} gave no answer`);
  const advice = operation === "rotate"
    ? `; stopped at "${step}", nobody is cut off; see to them, then: hypercore keys rotate ${
      answer.keys[0]?.key
    }`
    : "";
  throw new CommandError(`Cannot ${operation} the key everywhere: ${reasons.join("; ")}${advice}`);
}
