import type { RuntimeSelection } from "../../runtime/catalog/mod.ts";

/** What a workload is, checked: nothing in it can become a path, a flag or a shell word. */
export interface WorkloadSpec {
  image: string;
  /** Thousandths of a vCPU. */
  milliCpus: number;
  memoryBytes: number;
  pidsLimit: number;
  /** Sorted by host port. */
  ports: readonly PortMapping[];
  /** `KEY=value`. */
  env: readonly string[];
  args: readonly string[];
  tty: boolean;
  stdin: boolean;
  /** DNS label; absent means the workload has an id only. */
  name?: string;
  runtime: RuntimeSelection;
  /** What policies select and count by. */
  labels: Readonly<Record<string, string>>;
}

/** One way in: a port of the proxy leads to a port of the container. */
export interface PortMapping {
  hostPort: number;
  containerPort: number;
}
