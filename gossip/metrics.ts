/**
 * Where gossip's figures are registered. They are read when asked for, so that nothing is counted twice; the owner
 * adapts this to its own registry (prom-client: a metric with `collect`).
 */
export interface MetricsRegistry {
  /** A figure that only grows. */
  counter(name: string, help: string, read: () => number): void;
  /** A figure that goes up and down. */
  gauge(name: string, help: string, read: () => number): void;
}
