import type { Identity } from "../../proto/gen/hypercore/v1/identity_pb.ts";
import { apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { CommandError, exitCode } from "../exit.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";

/** Options of the identity commands. */
export interface IdentityOptions extends ClientOptions {
  json?: true;
  /** The file itself instead of the agent. */
  offline?: true;
  identityKey?: string;
}

type Shown = Pick<Identity, "nodeName" | "nodeId" | "publicKey" | "rotations">;

/** `hypercore identity show`. */
export async function identityShow(options: IdentityOptions & { pem?: true }, io: Io): Promise<number> {
  const identity = options.offline ? await readFile(options) : await ask(options, io, "show");
  if (!options.pem) return await print(identity, options, io);
  const { publicKeyPem } = await import("../../agent/beacon/identity.ts");
  await io.out(publicKeyPem(identity.publicKey));
  return exitCode.ok;
}

/** `hypercore identity rotate`. */
export async function identityRotate(options: IdentityOptions, io: Io): Promise<number> {
  if (!options.offline) return await print(await ask(options, io, "rotate"), options, io);
  const { rotateIdentity } = await import("../../agent/beacon/identity_file.ts");
  await rotateIdentity(await pathOf(options), { nowMs: Date.now() }).catch((error: Error) => {
    throw new CommandError(error.message, exitCode.failed, { cause: error });
  });
  return await print(await readFile(options), options, io);
}

async function ask(options: IdentityOptions, io: Io, call: "show" | "rotate"): Promise<Shown> {
  const api = connectApi(options, io);
  try {
    return await api.identity[call]({}, { timeoutMs: CALL_TIMEOUT_MS });
  } catch (error) {
    throw apiError(`Cannot ${call} the identity`, api, error);
  }
}

async function readFile(options: IdentityOptions): Promise<Shown> {
  const path = await pathOf(options);
  const { readIdentity } = await import("../../agent/beacon/identity_file.ts");
  const { rotationText } = await import("../../agent/beacon/identity_rotation.ts");
  try {
    const identity = await readIdentity(path);
    if (identity === undefined) throw new Error("there is none; the agent makes it when it first starts");
    const { nodeId, publicKey, rotations } = identity;
    return {
      nodeName: "",
      nodeId,
      publicKey: publicKey as Uint8Array<ArrayBuffer>,
      rotations: rotations.map(rotationText),
    };
  } catch (error) {
    const reason = (error as Error).message;
    throw new CommandError(`Cannot show the identity "${path}": ${reason}`, exitCode.failed, {
      cause: error,
    });
  }
}

async function pathOf({ identityKey, dataDir }: IdentityOptions): Promise<string> {
  const { IDENTITY_FILE } = await import("../../agent/beacon/identity_file.ts");
  return identityKey ?? `${dataDir}/${IDENTITY_FILE}`;
}

async function print(identity: Shown, options: IdentityOptions, io: Io): Promise<number> {
  const { nodeName, nodeId, publicKey, rotations } = identity;
  const key = publicKey.toBase64();
  if (options.json) {
    const shown = {
      ...(nodeName !== "" && { node: nodeName }),
      nodeId,
      publicKey: key,
      rotations: rotations.map((text) => JSON.parse(text)),
    };
    await io.out(`${JSON.stringify(shown, null, 2)}\n`);
  } else {
    await io.out(`node id     ${nodeId}\npublic key  ${key}\nrotations   ${rotations.length}\n`);
  }
  return exitCode.ok;
}
