import { PrivateKey } from "./identity.ts";
import { FileIdentity } from "./identity_file.ts";
import type { RotatableIdentity } from "./identity_live.ts";

/** An identity that is in no file. */
export function memoryIdentity(): RotatableIdentity {
  let current = FileIdentity.parse(PrivateKey.generate().pem());
  return {
    nodeId: current.nodeId,
    get publicKey() {
      return current.publicKey;
    },
    get rotations() {
      return current.rotations;
    },
    sign: (context, bytes) => current.sign(context, bytes),
    rotate(nowMs) {
      current = current.rotated(PrivateKey.generate(), nowMs);
      return Promise.resolve();
    },
  };
}
