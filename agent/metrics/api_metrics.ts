import { Counter, type Registry } from "prom-client";
import type { CallOutcome } from "../api/count_calls.ts";

/** What is counted of the API: gRPC, Connect and plain HTTP. */
export class ApiMetrics {
  readonly #calls: Counter;
  readonly #http: Counter;
  readonly #refused: Counter;
  readonly #cut: Counter;

  constructor(registry: Registry) {
    const registers = [registry];
    this.#calls = new Counter({
      name: "hypercore_api_calls_total",
      help:
        "Calls of the API by method and outcome; what is beyond a limit ends as resource_exhausted or invalid_argument",
      labelNames: ["method", "code"],
      registers,
    });
    this.#http = new Counter({
      name: "hypercore_http_requests_total",
      help: "Requests of the HTTP API by status",
      labelNames: ["code"],
      registers,
    });
    this.#refused = new Counter({
      name: "hypercore_api_refused_connections_total",
      help:
        "Connections to a port of the API, gRPC or HTTP, closed because there were as many as may be: such that gave way before a call on them was accepted, and new ones where none did",
      registers,
    });
    this.#cut = new Counter({
      name: "hypercore_api_cut_connections_total",
      help:
        "Connections to a port of the API, and streams of HTTP/2 on them, cut because their client took nothing",
      registers,
    });
  }

  /** A call of the API ended. */
  readonly call = (outcome: CallOutcome): void => this.#calls.inc({ ...outcome });

  /** A request of the HTTP API was answered with that status. */
  readonly httpRequest = (code: number): void => this.#http.inc({ code });

  /** A connection to the API was one too many: it gave way, or was new. */
  readonly refusedConnection = (): void => this.#refused.inc();

  /** A connection to the API, or a stream of one, had a client that took nothing. */
  readonly cutConnection = (): void => this.#cut.inc();
}
