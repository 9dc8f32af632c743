import { Code, ConnectError, createContextKey, type HandlerContext } from "@connectrpc/connect";

/** The node at the other end of a connection that it has proved its membership on. */
export interface Caller {
  /** As it says; whoever holds the cluster's key may say any. */
  nodeId: string;
  /** Its IP address. */
  host: string;
}

/** Where a handler finds {@linkcode Caller}: set on calls from nodes, and on no others. */
export const CALLER = createContextKey<Caller | undefined>(undefined, { description: "calling node" });

/** The node that makes the call. Throws `PermissionDenied` for a call that came another way. */
export function callerOf(context: Pick<HandlerContext, "values">): Caller {
  const caller = context.values.get(CALLER);
  if (caller !== undefined) return caller;
  throw new ConnectError("Cannot answer: only nodes of the cluster may ask this", Code.PermissionDenied);
}
