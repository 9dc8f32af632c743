import type { AttestationType } from "./attestation.ts";

/** What happens to a beacon, for whoever counts. */
export type BeaconObservation =
  /** This node signed an attestation that another asked for, or would not. */
  | { kind: "answered"; type: AttestationType | "unknown"; result: "signed" | "refused" }
  /** This node asked another, and verified what came back. */
  | { kind: "asked"; type: AttestationType; result: "verified" | "refused"; latencyMs: number }
  /** A state was not believed; how it came. */
  | { kind: "state-refused"; via: "event" | "owner" | "relay" }
  /** Whether an external registry knows this node. */
  | { kind: "registry"; isConnected: boolean };
