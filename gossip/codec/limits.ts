/** Bounds of everything that is decoded. A peer cannot make a decoder allocate more than these say. */
export const LIMITS = {
  /** Largest packet read from UDP. */
  packetBytes: 65_536,
  /** Packet size a sender keeps to. */
  udpBufferBytes: 1_400,
  /** Largest encrypted stream frame. */
  frameBytes: 20 * 1024 * 1024,
  /** Largest decompressed stream message. */
  streamBytes: 40 * 1024 * 1024,
  /** What one packet may unpack to, all its compressed parts together. */
  decompressedPacketBytes: 256 * 1024,
  /** Wrappers (compound, compress) inside one another. */
  nesting: 4,
  /** Nodes of one push/pull. */
  pushPullNodes: 1_048_576,
  /** Serf state of one push/pull, and one user message of a stream. */
  userStateBytes: 20 * 1024 * 1024,
  /** One Serf message that came by stream and may go on to others. */
  serfMessageBytes: 64 * 1024,
  /** One map of a stream (header, node state, error). */
  streamMapBytes: 4 * 1024,
  /** Levels of arrays and maps in one msgpack value. */
  msgpackDepth: 16,
  /** A node's name. */
  nameBytes: 1_024,
  /** A node's meta data. */
  metaBytes: 512,
  /** Slots of the user-event list of a push/pull. */
  eventSlots: 65_536,
  /** Events that share a Lamport time. */
  eventsPerSlot: 4_096,
  /** Filters of a query. */
  filters: 64,
  /** Node names of one filter. */
  filterNodes: 65_536,
  /** A key ring that is sealed for one node. */
  sealedRingBytes: 4 * 1024,
  /** Public keys of absent members in one push/pull. */
  doors: 4 * 1024,
  /** Keys of a key response. */
  keys: 1_024,
  /** Tags of a node (512 bytes of meta data hold fewer). */
  tags: 512,
} as const;
