import { DecodeError } from "./error.ts";
import type { MsgpackReader } from "./msgpack_reader.ts";
import { MsgpackWriter } from "./msgpack_writer.ts";

/** Dimensions of the coordinate space. */
export const DIMENSIONS = 8;
const PING_VERSION = 1;

/** A node's place in the network's latency space (Vivaldi). All figures are seconds, `error` is relative. */
export interface Coordinate {
  vec: number[];
  error: number;
  adjustment: number;
  height: number;
}

/** Encodes a coordinate as the payload of an ack. */
export function encodePingPayload(coordinate: Coordinate): Uint8Array {
  const out = new MsgpackWriter().byte(PING_VERSION).map(4).string("Adjustment").float(coordinate.adjustment)
    .string("Error").float(coordinate.error).string("Height").float(coordinate.height)
    .string("Vec").array(coordinate.vec.length);
  for (const component of coordinate.vec) out.float(component);
  return out.finish();
}

/** Decodes the payload of an ack. Throws {@linkcode DecodeError}. */
export function decodePingPayload(reader: MsgpackReader): Coordinate {
  const version = reader.byte();
  if (version !== PING_VERSION) throw new DecodeError("coordinate", `version ${version} is unknown`);
  const coordinate: Coordinate = { vec: [], error: 0, adjustment: 0, height: 0 };
  for (let entries = reader.map(); entries > 0; entries--) {
    switch (reader.string()) {
      case "Adjustment":
        coordinate.adjustment = reader.number();
        break;
      case "Error":
        coordinate.error = reader.number();
        break;
      case "Height":
        coordinate.height = reader.number();
        break;
      case "Vec": {
        const length = reader.array(DIMENSIONS) ?? 0;
        coordinate.vec = [];
        for (let i = 0; i < length; i++) coordinate.vec.push(reader.number());
        break;
      }
      default:
        reader.skip();
    }
  }
  return coordinate;
}
