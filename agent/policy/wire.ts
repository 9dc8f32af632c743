/** A policy file as it is written, once the schema has passed it. */
export interface PolicyFile {
  name: string;
  description?: string;
  mode: "enforce" | "permissive";
  on_failure?: "refuse" | "permissive";
  rules?: RulesFile;
  permissions?: PermissionsFile;
  network?: NetworkFile;
  scoring?: Partial<Record<ScoringKey, number>>;
}

/** Keys of `scoring`. */
export type ScoringKey =
  | "latency_weight"
  | "price_weight"
  | "reputation_weight"
  | "queue_weight"
  | "spread_weight"
  | "affinity_weight";

/** `rules`. */
export interface RulesFile {
  required_capabilities?: string[];
  max_latency_ms?: number;
  max_price_per_gb?: number;
  min_reputation_score?: number;
  max_queue_depth?: number;
  max_packet_loss?: number;
  max_jitter_ms?: number;
  prefer_low_latency?: boolean;
  prefer_low_price?: boolean;
  prefer_high_reputation?: boolean;
  unknown_values?: "refuse" | "admit";
  nodes?: string[];
  not_nodes?: string[];
  node_tags?: Record<string, string | string[]>;
  not_node_tags?: Record<string, string | string[]>;
  beside?: SelectorFile[];
  not_beside?: SelectorFile[];
  prefer_beside?: SelectorFile[];
  prefer_not_beside?: SelectorFile[];
  spread?: { tag: string; among?: SelectorFile; max_skew?: number }[];
}

/** A selector of workloads. */
export interface SelectorFile {
  workload?: string;
  image?: string;
  labels?: Record<string, string>;
  same_labels?: string[];
  tag?: string;
}

/** `permissions`. */
export interface PermissionsFile {
  allowed_images?: string[];
  denied_images?: string[];
  allowed_registries?: string[];
  require_image_digest?: boolean;
  required_image_digests?: Record<string, string | string[]>;
  max_cores?: number;
  max_memory_mib?: number;
  max_env?: number;
  max_ports?: number;
  allowed_host_ports?: PortFile[];
  allowed_container_ports?: PortFile[];
  allowed_runtimes?: string[];
  allowed_env_keys?: string[];
  required_labels?: string[];
  quotas?: {
    label: string;
    value?: string;
    max_workloads?: number;
    max_cores?: number;
    max_memory_mib?: number;
  }[];
}

/** `network`. */
export interface NetworkFile {
  egress?: { cidr?: string; protocol?: "tcp" | "udp" | "icmp" | "any"; ports?: PortFile[] }[];
  ingress_ports?: PortFile[];
}

/** A port, or a range `8000-8100`. */
export type PortFile = number | string;
