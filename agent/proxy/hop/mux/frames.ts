/** The header of every frame (yamux, version 0): version, type, flags, stream id, length; big-endian. */
export const HEADER_BYTES = 12;
/** What a side may send on a new stream before it is told of more. */
export const INITIAL_WINDOW_BYTES = 256 * 1024;

/** What a frame is. */
export const FrameType = { data: 0, windowUpdate: 1, ping: 2, goAway: 3 } as const;

/** On data frames and window updates: SYN opens a stream, ACK takes it, FIN ends one direction, RST both. On pings: SYN asks, ACK answers. */
export const Flag = { syn: 1, ack: 2, fin: 4, rst: 8 } as const;

/** The reason in a frame that says goodbye. */
export const GOING_AWAY_NORMALLY = 0;

/** The other side does not keep to the protocol: its connection is of no more use. */
export class MuxProtocolError extends Error {
  override readonly name = "MuxProtocolError";
}

/** The first bytes of a frame. */
export interface FrameHeader {
  type: number;
  flags: number;
  /** 0 for the session itself. */
  streamId: number;
  /** Of data, the bytes that follow; of a window update, those that may be sent in addition; of a ping, its number. */
  length: number;
}

/** Writes a header of {@linkcode HEADER_BYTES}. */
export function writeHeader(
  view: DataView,
  at: number,
  { type, flags, streamId, length }: FrameHeader,
): void {
  view.setUint16(at, type); // the version is 0
  view.setUint16(at + 2, flags);
  view.setUint32(at + 4, streamId);
  view.setUint32(at + 8, length);
}

/** Reads a header into `into`. Throws a {@linkcode MuxProtocolError} where the version is another or the type is none. */
export function readHeader(view: DataView, at: number, into: FrameHeader): void {
  const type = view.getUint16(at);
  if (type > FrameType.goAway) {
    throw new MuxProtocolError(`a frame is of version ${type >> 8} and type ${type & 0xff}`);
  }
  into.type = type;
  into.flags = view.getUint16(at + 2);
  into.streamId = view.getUint32(at + 4);
  into.length = view.getUint32(at + 8);
}
