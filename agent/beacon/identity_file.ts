import { dirname } from "node:path";
import { parseCanonical } from "../canonical.ts";
import { type NodeIdentity, nodeIdOf, PrivateKey } from "./identity.ts";
import {
  parseRotations,
  rotate,
  type RotationRecord,
  rotationText,
  verifyClaim,
} from "./identity_rotation.ts";

/** The identity's file in the data dir. */
export const IDENTITY_FILE = "identity.key";
/** Largest file that is read, bytes: a key and the most rotations fit. */
export const MAX_IDENTITY_BYTES = 131_072;

const NONE = "there is none; the agent makes it when it first starts";
const BEGIN_ROTATIONS = "-----BEGIN HYPERCORE ROTATIONS-----\n";
const END_ROTATIONS = "-----END HYPERCORE ROTATIONS-----\n";

/** A node's identity as its file holds it. Immutable: a rotation gives another one. */
export class FileIdentity implements NodeIdentity {
  readonly #key: PrivateKey;

  constructor(key: PrivateKey, readonly nodeId: string, readonly rotations: readonly RotationRecord[]) {
    this.#key = key;
  }

  get publicKey(): Uint8Array {
    return this.#key.publicKey;
  }

  sign(...[context, bytes]: Parameters<NodeIdentity["sign"]>): Uint8Array<ArrayBuffer> {
    return this.#key.sign(context, bytes);
  }

  /** The same node with another key. Throws an Error at the limit of rotations. */
  rotated(next: PrivateKey, nowMs: number): FileIdentity {
    const record = rotate(this, { current: this.#key, next, nowMs });
    return new FileIdentity(next, this.nodeId, [...this.rotations, record]);
  }

  /** The file's text: the key in PEM, as openssl reads it, then the rotations. */
  text(): string {
    const rotations = this.rotations.map((each) => `${rotationText(each)}\n`).join(
      "",
    );
    return this.#key.pem() + (rotations === "" ? "" : BEGIN_ROTATIONS + rotations + END_ROTATIONS);
  }

  /** Reads {@linkcode FileIdentity.text}, or a bare key that openssl made. Throws an Error that says what is wrong. */
  static parse(text: string): FileIdentity {
    const [pem, rest] = text.split(BEGIN_ROTATIONS, 2);
    const key = PrivateKey.fromPem(pem);
    if (rest !== undefined && !rest.endsWith(END_ROTATIONS)) throw new Error("its rotations are cut off");
    const lines = rest === undefined ? [] : rest.slice(0, -END_ROTATIONS.length).split("\n").slice(0, -1);
    const parsed = parseRotations(lines.map((line) => {
      const read = parseCanonical(line);
      if ("reason" in read) throw new Error(`a rotation cannot be read: ${read.reason}`);
      return read.value;
    }));
    if ("reason" in parsed) throw new Error(parsed.reason);
    const { rotations } = parsed;
    const nodeId = rotations.length === 0 ? nodeIdOf(key.publicKey) : rotations[0].node_id;
    const identity = new FileIdentity(key, nodeId, rotations);
    const verdict = verifyClaim(identity);
    if ("reason" in verdict) throw new Error(verdict.reason);
    return identity;
  }
}

/**
 * The identity in this file, made at first start with mode 0600. Agents that start at the same moment end up with the
 * same one. Throws an Error that names the file, also for one that others may read or that somebody planted.
 */
export async function loadIdentity(path: string): Promise<FileIdentity> {
  try {
    return await readIdentity(path) ?? await makeIdentity(path);
  } catch (error) {
    throw failure("load", path, error);
  }
}

/**
 * Gives the identity in this file a new key, at once and whole: after a crash the file holds the one or the other.
 * Several callers rotate one after the other. Throws an Error that names the file, also when it is not of `nodeId`.
 */
export async function rotateIdentity(
  path: string,
  options: { nowMs: number; nodeId?: string },
): Promise<FileIdentity> {
  try {
    using _lock = await lockFile(path);
    const current = await readIdentity(path);
    if (current === undefined) throw new Error(NONE);
    if (options.nodeId !== undefined && current.nodeId !== options.nodeId) {
      throw new Error(`it is of node ${current.nodeId} by now; start the agent anew`);
    }
    const next = current.rotated(PrivateKey.generate(), options.nowMs);
    const draft = await writeDraft(path, next);
    try {
      await Deno.rename(draft, path);
    } catch (error) {
      await removeDraft(draft);
      throw error;
    }
    await syncDir(path);
    return next;
  } catch (error) {
    throw failure("rotate", path, error);
  }
}

/** Reads it; nothing when there is none. Throws an Error that says what is wrong with it. */
export async function readIdentity(path: string): Promise<FileIdentity | undefined> {
  let before: Deno.FileInfo;
  try {
    before = await Deno.lstat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  // Told before it is opened: a link is not followed, a pipe would block.
  if (!before.isFile) throw new Error("it is not a regular file");
  using file = await Deno.open(path);
  const info = await file.stat();
  if (info.ino !== before.ino || info.dev !== before.dev) {
    throw new Error("somebody replaced it while it was read");
  }
  if ((info.mode! & 0o077) !== 0) throw new Error("others may read it; its mode must be 0600");
  if (info.uid !== Deno.uid() && info.uid !== 0) throw new Error("it belongs to another user");
  if (info.size > MAX_IDENTITY_BYTES) throw new Error(`it is larger than ${MAX_IDENTITY_BYTES} bytes`);
  return FileIdentity.parse(await new Response(file.readable).text());
}

/** Writes it whole under another name first; the link fails when somebody else was faster. */
async function makeIdentity(path: string): Promise<FileIdentity> {
  await Deno.mkdir(dirname(path), { recursive: true });
  const key = PrivateKey.generate();
  const identity = new FileIdentity(key, nodeIdOf(key.publicKey), []);
  const draft = await writeDraft(path, identity);
  try {
    await Deno.link(draft, path);
    await syncDir(path);
    return identity;
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    const winner = await readIdentity(path);
    if (winner === undefined) throw error;
    return winner;
  } finally {
    await removeDraft(draft);
  }
}

async function writeDraft(path: string, identity: FileIdentity): Promise<string> {
  const draft = `${path}.${crypto.randomUUID()}`;
  try {
    await Deno.writeTextFile(draft, identity.text(), { createNew: true, mode: 0o600 });
    using file = await Deno.open(draft);
    await file.sync();
    return draft;
  } catch (error) {
    await removeDraft(draft);
    throw error;
  }
}

async function removeDraft(draft: string): Promise<void> {
  await Deno.remove(draft).catch(() => {}); // a draft that was never written, or has been renamed, needs no removal
}

/** Makes the name durable; some file systems cannot do that for a directory, and need not. */
async function syncDir(path: string): Promise<void> {
  try {
    using dir = await Deno.open(dirname(path));
    await dir.sync();
  } catch {
    return;
  }
}

/** Waits for its turn. The lock is on the file, which a rotation replaces: whoever waited for the old one asks again. */
async function lockFile(path: string): Promise<Disposable> {
  for (;;) {
    if (!(await Deno.lstat(path)).isFile) throw new Error("it is not a regular file");
    const file = await Deno.open(path);
    try {
      await file.lock(true);
      const [held, named] = [await file.stat(), await Deno.lstat(path)];
      if (held.ino === named.ino && held.dev === named.dev) return file;
    } catch (error) {
      file.close();
      throw error;
    }
    file.close();
  }
}

function failure(action: string, path: string, error: unknown): Error {
  const reason = error instanceof Deno.errors.NotFound
    ? NONE
    : error instanceof Error
    ? error.message
    : String(error);
  return new Error(`Cannot ${action} the identity "${path}": ${reason}`, { cause: error });
}
