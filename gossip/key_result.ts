import { DecodeError } from "./codec/error.ts";
import { MsgpackReader } from "./codec/msgpack_reader.ts";
import { decodeKeyResponse } from "./codec/serf_internal.ts";
import { SerfType } from "./codec/serf_messages.ts";

/** What came of a key operation. */
export interface KeyResult {
  /** Whether every living member did it. */
  ok: boolean;
  /** Living members when it was asked. */
  members: number;
  answers: number;
  /** Living members that did not answer in time. */
  missing: string[];
  /** Reasons by member. */
  errors: Map<string, string>;
  /** For `listKeys`: how many members hold each key (base64). */
  keys: Map<string, number>;
  /** For `listKeys`: how many members have it as primary. */
  primaryKeys: Map<string, number>;
}

/** A result without answers yet. */
export function emptyKeyResult(living: readonly string[]): KeyResult {
  return {
    ok: false,
    members: living.length,
    answers: 0,
    missing: [...living],
    errors: new Map(),
    keys: new Map(),
    primaryKeys: new Map(),
  };
}

/** Counts one member's answer, whose payload begins with its type byte. */
export function noteKeyResponse(result: KeyResult, from: string, payload: Uint8Array): void {
  result.answers++;
  result.missing = result.missing.filter((name) => name !== from);
  try {
    if (payload[0] !== SerfType.keyResponse) {
      throw new DecodeError("key response", `type ${payload[0]} is none`);
    }
    const response = decodeKeyResponse(new MsgpackReader().reset(payload, 1));
    if (!response.result) result.errors.set(from, response.message);
    for (const key of response.keys) result.keys.set(key, (result.keys.get(key) ?? 0) + 1);
    const { primaryKey } = response;
    if (primaryKey !== "") result.primaryKeys.set(primaryKey, (result.primaryKeys.get(primaryKey) ?? 0) + 1);
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    result.errors.set(from, error.message);
  }
  result.ok = result.errors.size === 0 && result.missing.length === 0;
}
