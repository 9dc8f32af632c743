import type { ServiceImpl } from "@connectrpc/connect";
import type { IdentityService } from "../../proto/gen/hypercore/v1/identity_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { RotatableIdentity } from "../beacon/identity_live.ts";
import { rotationText } from "../beacon/identity_rotation.ts";

/** Who this node is, and its change of key. */
export function identityService(
  identity: RotatableIdentity,
  options: { nodeName: string; onRotated: () => void },
): ServiceImpl<typeof IdentityService> {
  const message = () => ({
    nodeName: options.nodeName,
    nodeId: identity.nodeId,
    publicKey: identity.publicKey as Uint8Array<ArrayBuffer>,
    rotations: identity.rotations.map(rotationText),
  });
  return {
    show: message,
    async rotate() {
      try {
        await identity.rotate(Date.now());
        options.onRotated();
      } catch (error) {
        throw new RuntimeError("failed", (error as Error).message, { cause: error });
      }
      return message();
    },
  };
}
