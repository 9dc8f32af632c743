/** Running totals of the Serf layer, read by whoever exports metrics. */
export interface SerfCounters {
  userEvents: number;
  queries: number;
  queryAnswers: number;
  relays: number;
  limited: number;
}

/** Counters at zero. */
export function newSerfCounters(): SerfCounters {
  return { userEvents: 0, queries: 0, queryAnswers: 0, relays: 0, limited: 0 };
}
