import type { VerifyProofResponse } from "../../proto/gen/hypercore/v1/proof_pb.ts";
import { apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { CommandError, exitCode, UsageError } from "../exit.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";
import { printable } from "../parse/values.ts";
import { formatTable } from "../table.ts";
import { requireId } from "../workload_id.ts";

/** Options of the proof commands. */
export interface ProofOptions extends ClientOptions {
  id?: string;
  json?: true;
}

/** What a proof's line holds, as far as it is shown. */
interface ShownEntry {
  hash: string;
  body: Record<string, string | number>;
}

/** `hypercore proof show ID`. */
export async function proofShow(
  given: string | undefined,
  options: ProofOptions & { last?: number },
  io: Io,
): Promise<number> {
  const id = requireId(given ?? options.id);
  const api = connectApi(options, io);
  const answer = await api.proofs.show({ id, count: options.last ?? 1 }, { timeoutMs: CALL_TIMEOUT_MS })
    .catch((error) => {
      throw apiError(`Cannot show the proofs of "${id}"`, api, error);
    });
  const entries = answer.entries.map((line) => readEntry(line, id));
  if (options.json) {
    await io.out(
      `${JSON.stringify(options.last === undefined ? entries.at(-1) ?? null : entries, null, 2)}\n`,
    );
    return exitCode.ok;
  }
  await io.out(formatTable(
    ["SEQ", "KIND", "AT", "GEN", "WALL", "CPU", "MEMORY", "PEAK", "READ", "WRITTEN", "EXIT", "HASH"],
    entries.map(({ hash, body }) => [
      String(body.seq ?? `${body.from_seq}-${body.to_seq}`),
      String(body.kind),
      new Date(Number(body.at_ms)).toISOString(),
      String(body.generation ?? ""),
      seconds(body.wall_ms, 1e3),
      seconds(body.cpu_us, 1e6),
      mebibytes(body.memory_bytes),
      mebibytes(body.memory_peak_bytes),
      mebibytes(body.io_read_bytes),
      mebibytes(body.io_write_bytes),
      String(body.exit_code ?? ""),
      hash.slice(0, 16),
    ]),
  ));
  return exitCode.ok;
}

/** `hypercore proof verify ID`, or `--file FILE` without any agent. */
export async function proofVerify(
  given: string | undefined,
  options: ProofOptions & { file?: string; publicKey?: string; nodeId?: string; hash?: string },
  io: Io,
): Promise<number> {
  if (options.hash !== undefined && !/^[0-9a-f]{64}$/.test(options.hash)) {
    throw new UsageError(`--hash: "${printable(options.hash)}" is not 64 hex digits`);
  }
  if (options.file !== undefined) {
    if ((given ?? options.id) !== undefined) throw new UsageError("give an id or --file, not both");
    const { verifyFile } = await import("./proof_file.ts");
    return await printVerdict(await verifyFile({ ...options, file: options.file }, io), options, io);
  }
  for (const [flag, value] of [["--public-key", options.publicKey], ["--node-id", options.nodeId]]) {
    if (value !== undefined) throw new UsageError(`${flag} goes with --file only`);
  }
  const id = requireId(given ?? options.id);
  const api = connectApi(options, io);
  const answer = await api.proofs.verify({ id, proofHash: options.hash ?? "" }, {
    timeoutMs: CALL_TIMEOUT_MS,
  })
    .catch((error) => {
      throw apiError(`Cannot verify the proofs of "${id}"`, api, error);
    });
  return await printVerdict(answer, options, io);
}

/** `hypercore proof export ID`. */
export async function proofExport(
  given: string | undefined,
  options: ProofOptions & { output?: string },
  io: Io,
): Promise<number> {
  const id = requireId(given ?? options.id);
  const api = connectApi(options, io);
  const { file } = await api.proofs.export({ id }, { timeoutMs: CALL_TIMEOUT_MS }).catch((error) => {
    throw apiError(`Cannot export the proofs of "${id}"`, api, error);
  });
  if (options.output === undefined) {
    await io.out(file);
    return exitCode.ok;
  }
  await Deno.writeFile(options.output, file, { createNew: true }).catch((error: Error) => {
    const reason = error instanceof Deno.errors.AlreadyExists ? "it is there already" : error.message;
    throw new CommandError(`Cannot write "${options.output}": ${reason}`, exitCode.failed, { cause: error });
  });
  return exitCode.ok;
}

/** What is printed of a verdict. */
export type ShownVerdict = Omit<VerifyProofResponse, "$typeName" | "$unknown" | "summary"> & {
  summary?: Omit<NonNullable<VerifyProofResponse["summary"]>, "$typeName" | "$unknown">;
  /** Whose word it is that the key is the node's, when it is the file's own. */
  note?: string;
};

/** Exit code 0 for VALID only. */
async function printVerdict(verdict: ShownVerdict, options: { json?: true }, io: Io): Promise<number> {
  const { result, reason, workloadId, nodeId, badSeq, summary, note } = verdict;
  if (options.json) {
    const shown = {
      result,
      workload: workloadId,
      node: nodeId,
      ...(reason !== "" && { reason }),
      ...(badSeq > 0n && { badSeq: Number(badSeq) }),
      ...(verdict.verifiedBy !== "" && { verifiedBy: verdict.verifiedBy }),
      ...(summary && {
        proofs: Number(summary.count),
        dropped: Number(summary.dropped),
        lastHash: summary.lastHash,
        firstAt: new Date(Number(summary.firstAtMs)).toISOString(),
        lastAt: new Date(Number(summary.lastAtMs)).toISOString(),
        generation: Number(summary.generation),
        cpuUs: Number(summary.cpuUs),
        wallMs: Number(summary.wallMs),
        imageDigest: summary.imageDigest,
        hypervisorType: summary.hypervisorType,
      }),
    };
    await io.out(`${JSON.stringify(shown, null, 2)}\n`);
  } else {
    const where = badSeq > 0n ? ` at proof ${badSeq}` : "";
    const lines = [`${result}${where}${reason === "" ? "" : `: ${printable(reason)}`}`];
    if (summary !== undefined) {
      lines.push(
        `workload  ${workloadId}`,
        `node      ${nodeId}`,
        `proofs    ${summary.count}${
          summary.dropped > 0n ? `, and ${summary.dropped} behind a checkpoint` : ""
        }`,
        `time      ${seconds(Number(summary.wallMs), 1e3)}, up to generation ${summary.generation}`,
        `cpu       ${seconds(Number(summary.cpuUs), 1e6)}`,
        `image     ${summary.imageDigest}`,
        `runtime   ${summary.hypervisorType}`,
        `last hash ${summary.lastHash}`,
      );
    }
    await io.out(`${lines.join("\n")}\n`);
  }
  if (note !== undefined && result === "VALID") await io.err(`hypercore: ${note}\n`);
  return result === "VALID" ? exitCode.ok : exitCode.failed;
}

function readEntry(line: string, id: string): ShownEntry {
  try {
    const entry = JSON.parse(line);
    return { ...entry, hash: String(entry.hash), body: Object(entry.body) };
  } catch (error) {
    throw new CommandError(`Cannot show the proofs of "${id}": the log is damaged`, exitCode.failed, {
      cause: error,
    });
  }
}

function seconds(value: string | number | undefined, perSecond: number): string {
  return value === undefined ? "" : `${(Number(value) / perSecond).toFixed(3)}s`;
}

function mebibytes(value: string | number | undefined): string {
  return value === undefined ? "" : `${(Number(value) / 1_048_576).toFixed(1)}M`;
}
