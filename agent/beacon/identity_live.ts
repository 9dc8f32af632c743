import type { NodeIdentity, SigningContext } from "./identity.ts";
import { type FileIdentity, loadIdentity, rotateIdentity } from "./identity_file.ts";
import type { RotationRecord } from "./identity_rotation.ts";

/** An identity that can be given a new key while it is in use. */
export interface RotatableIdentity extends NodeIdentity {
  /** Signs with a new key from now on, introduced by the old one. Throws an Error that says why it cannot. */
  rotate(nowMs: number): Promise<void>;
}

/** The identity of a running agent: a rotation takes effect at once for whoever holds this object. */
export class LiveIdentity implements RotatableIdentity {
  #current: FileIdentity;
  readonly path: string;

  private constructor(current: FileIdentity, path: string) {
    this.#current = current;
    this.path = path;
  }

  /** From its file, made at first start. Throws an Error that names the file. */
  static async open(path: string): Promise<LiveIdentity> {
    return new LiveIdentity(await loadIdentity(path), path);
  }

  get nodeId(): string {
    return this.#current.nodeId;
  }

  get publicKey(): Uint8Array {
    return this.#current.publicKey;
  }

  get rotations(): readonly RotationRecord[] {
    return this.#current.rotations;
  }

  sign(context: SigningContext, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
    return this.#current.sign(context, bytes);
  }

  /** The new key is used once it is safe in the file; one that was rotated there meanwhile is taken from there. */
  async rotate(nowMs: number): Promise<void> {
    this.#current = await rotateIdentity(this.path, { nowMs, nodeId: this.nodeId });
  }
}
