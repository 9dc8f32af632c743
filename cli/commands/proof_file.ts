import { Buffer } from "node:buffer";
import { createPublicKey } from "node:crypto";
import { PUBLIC_KEY_BYTES } from "../../agent/beacon/identity.ts";
import { fromBase64, isSameBytes, verifyClaim } from "../../agent/beacon/identity_rotation.ts";
import { MAX_EXPORT_BYTES, parseExport } from "../../agent/proof/export.ts";
import { verdictMessage } from "../../agent/proof/proof_service.ts";
import { type Verdict, verifyLines } from "../../agent/proof/verifier.ts";
import { CommandError, exitCode, UsageError } from "../exit.ts";
import type { Io } from "../io.ts";
import { printable } from "../parse/values.ts";
import type { ShownVerdict } from "./proof.ts";

/** Verifies an exported file by itself; no agent is asked. */
export async function verifyFile(
  options: { file: string; publicKey?: string; nodeId?: string; hash?: string },
  io: Io,
): Promise<ShownVerdict> {
  const key = options.publicKey === undefined ? undefined : readKey(options.publicKey, io);
  const read = parseExport(await readFile(options.file));
  const facts = {
    workloadId: "workload" in read ? read.workload : "",
    nodeId: "claim" in read ? read.claim.nodeId : "",
    verifiedBy: "",
  };
  const verdict = judge();
  const message = verdictMessage(verdict, facts) as unknown as ShownVerdict;
  const isAnchored = key !== undefined || options.nodeId !== undefined;
  return {
    ...message,
    reason: message.reason ?? "",
    badSeq: message.badSeq ?? 0n,
    ...(!isAnchored && {
      note:
        `that ${facts.nodeId} is the node you mean is for you to know: see "hypercore identity show" on it, and --node-id`,
    }),
  };

  function judge(): Verdict {
    if ("reason" in read) return { result: "INVALID", reason: read.reason };
    const { claim, workload, lines } = read;
    if (options.nodeId !== undefined && claim.nodeId !== options.nodeId) {
      return { result: "INVALID", reason: `it is of node ${claim.nodeId}` };
    }
    const identity = verifyClaim(claim);
    if (key !== undefined && !("keys" in identity && identity.keys.some((each) => isSameBytes(each, key)))) {
      return { result: "INVALID", reason: "its node never had the given key" };
    }
    return verifyLines(lines, { claim, workload, wantedHash: options.hash });
  }
}

/** A key as base64 of 32 bytes, or a file with it in PEM. */
function readKey(text: string, io: Io): Uint8Array {
  const bare = fromBase64(text, PUBLIC_KEY_BYTES);
  if (bare !== undefined) return bare;
  try {
    const key = createPublicKey(io.readTextFile(text));
    if (key.asymmetricKeyType !== "ed25519") throw new Error("its key is not Ed25519");
    return new Uint8Array(
      Buffer.from(key.export({ format: "der", type: "spki" })).subarray(-PUBLIC_KEY_BYTES),
    );
  } catch (error) {
    const reason = (error as Error).message;
    throw new UsageError(
      `--public-key: "${printable(text)}" is neither a key in base64 nor a PEM file: ${reason}`,
      {
        cause: error,
      },
    );
  }
}

async function readFile(path: string): Promise<Uint8Array> {
  try {
    using file = await Deno.open(path);
    const { isDirectory, size } = await file.stat();
    if (isDirectory) throw new Error("it is a directory");
    if (size > MAX_EXPORT_BYTES) throw new Error(`it is larger than ${MAX_EXPORT_BYTES} bytes`);
    return new Uint8Array(await new Response(file.readable).arrayBuffer());
  } catch (error) {
    throw new CommandError(`Cannot read "${path}": ${(error as Error).message}`, exitCode.failed, {
      cause: error,
    });
  }
}
