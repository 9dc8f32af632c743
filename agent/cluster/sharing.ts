import type { WorkloadState } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { MAX_SHARED } from "./limits.ts";

/**
 * Keeps once what many workloads have in common: image reference, ports, names of environment variables, arguments. A map
 * of ports as it is decoded takes kilobytes, since the engine lays it out as an array up to the highest port.
 */
export class Sharing {
  readonly #strings = new Map<string, string>();
  readonly #lists = new Map<string, string[]>();
  readonly #ports = new Map<string, { [hostPort: number]: number }>();

  /** Things kept. */
  get size(): number {
    return this.#strings.size + this.#lists.size + this.#ports.size;
  }

  /** Replaces parts of a workload by equal ones. It must not be changed from then on. */
  share(state: WorkloadState): WorkloadState {
    state.status = this.#string(state.status);
    const request = state.sourceRequest;
    if (request === undefined) return state;
    request.imageRef = this.#string(request.imageRef);
    request.env = this.#list(request.env);
    request.args = this.#list(request.args);
    request.constraints = this.#list(request.constraints);
    const text = Object.entries(request.ports).join();
    request.ports = keep(this.#ports, text, () => request.ports);
    return state;
  }

  #string(text: string): string {
    return keep(this.#strings, text, () => text);
  }

  #list(list: string[]): string[] {
    return keep(this.#lists, JSON.stringify(list), () => list.map((text) => this.#string(text)));
  }
}

function keep<T>(known: Map<string, T>, key: string, make: () => T): T {
  let value = known.get(key);
  if (value !== undefined) return value;
  // What is in use stays alive where it is used; only new ones find none to share any more.
  if (known.size >= MAX_SHARED) known.clear();
  known.set(key, value = make());
  return value;
}
