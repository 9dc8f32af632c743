import { formatPorts, includesPort, type PortRange } from "../../runtime/network/rules.ts";
import type { PlacedWorkload, PlacementRequest } from "./facts.ts";
import { imagePattern, parseImageName, repositoryPattern } from "./image_pattern.ts";
import { anyOf, glob } from "./pattern.ts";
import type { Permissions, Policy, Quota } from "./policy.ts";

/** A rule and why the request breaks it. */
export interface Finding {
  rule: string;
  reason: string;
}

const MEBIBYTE = 1_048_576;
/** Of a text from outside, what a reason shows. */
const MAX_SHOWN = 100;

/** What of the request this policy forbids whatever the node; `running` is what counts against its quotas. */
export function requestFindings(
  policy: Policy,
  request: PlacementRequest,
  running: () => readonly PlacedWorkload[],
): Finding[] {
  const { permissions, network } = policy;
  const findings: Finding[] = [];
  const add = (rule: string, reason: string) => findings.push({ rule: `permissions.${rule}`, reason });
  imageFindings(permissions, request.image, add);
  const atMost = (rule: string, what: string, asked: number, most: number | undefined) => {
    if (most !== undefined && asked > most) {
      add(rule, `${asked} ${what} are asked for, at most ${most} are allowed`);
    }
  };
  atMost("max_cores", "vCPUs", request.milliCpus / 1000, permissions.maxCores);
  atMost("max_memory_mib", "MiB of memory", request.memoryBytes / MEBIBYTE, permissions.maxMemoryMib);
  atMost("max_env", "environment variables", request.env.length, permissions.maxEnv);
  atMost("max_ports", "ports", request.ports.length, permissions.maxPorts);
  const hostPorts = request.ports.map(({ hostPort }) => hostPort);
  const containerPorts = request.ports.map(({ containerPort }) => containerPort);
  for (const ranges of permissions.allowedHostPorts) {
    portFindings(
      ranges,
      { ports: hostPorts, what: "host port" },
      (reason) => add("allowed_host_ports", reason),
    );
  }
  for (const ranges of permissions.allowedContainerPorts) {
    const ports = { ports: containerPorts, what: "container port" };
    portFindings(ranges, ports, (reason) => add("allowed_container_ports", reason));
  }
  if (network?.ingressPorts !== undefined) {
    portFindings(network.ingressPorts, { ports: containerPorts, what: "container port" }, (reason) => {
      findings.push({ rule: "network.ingress_ports", reason });
    });
  }
  for (const runtimes of permissions.allowedRuntimes) {
    if (!runtimes.some((pattern) => glob(pattern)(request.runtime.name))) {
      add(
        "allowed_runtimes",
        `runtime "${shown(request.runtime.name)}" is none of ${runtimes.join(", ") || "none"}`,
      );
    }
  }
  for (const keys of permissions.allowedEnvKeys) {
    const isAllowed = anyOf(keys.map(glob));
    for (const entry of request.env) {
      const key = entry.split("=", 1)[0];
      if (!isAllowed(key)) add("allowed_env_keys", `environment variable "${shown(key)}" is not allowed`);
    }
  }
  for (const label of permissions.requiredLabels) {
    if (!Object.hasOwn(request.labels, label)) add("required_labels", `label "${label}" is missing`);
  }
  if (permissions.quotas.length > 0) {
    const others = running().filter(({ id }) => id !== request.id);
    permissions.quotas.forEach((quota, index) =>
      quotaFindings(quota, request, others, (reason) => {
        add(`quotas[${index}]`, reason);
      })
    );
  }
  return findings;
}

type Add = (rule: string, reason: string) => void;

function imageFindings(permissions: Permissions, text: string, add: Add): void {
  const { allowedImages, deniedImages, allowedRegistries, requireImageDigest, requiredImageDigests } =
    permissions;
  const isLimited = allowedImages.length + deniedImages.length + allowedRegistries.length +
      requiredImageDigests.length > 0;
  if (!isLimited && !requireImageDigest) return;
  const image = parseImageName(text);
  if (image === undefined) return add("allowed_images", `image "${shown(text)}" is not an image reference`);
  for (const patterns of allowedImages) {
    if (!patterns.some((pattern) => imagePattern(pattern)(image))) {
      add("allowed_images", `image "${shown(image.name)}" is none of ${patterns.join(", ") || "none"}`);
    }
  }
  for (const pattern of deniedImages) {
    if (imagePattern(pattern)(image)) {
      add("denied_images", `image "${shown(image.name)}" is one of ${pattern}`);
    }
  }
  for (const registries of allowedRegistries) {
    if (!registries.some((pattern) => glob(pattern)(image.registry))) {
      add(
        "allowed_registries",
        `registry "${shown(image.registry)}" is none of ${registries.join(", ") || "none"}`,
      );
    }
  }
  if (requireImageDigest && image.digest === undefined) {
    add("require_image_digest", `image "${shown(image.name)}" is not given by its digest (…@sha256:…)`);
  }
  for (const { image: pattern, digests } of requiredImageDigests) {
    if (!repositoryPattern(pattern)(image)) continue;
    if (image.digest === undefined || !digests.includes(image.digest)) {
      add(
        "required_image_digests",
        `image "${shown(image.name)}" is not given by a digest that is required of ${pattern}`,
      );
    }
  }
}

function portFindings(
  ranges: readonly PortRange[],
  asked: { ports: readonly number[]; what: string },
  add: (reason: string) => void,
): void {
  for (const port of new Set(asked.ports)) {
    if (!includesPort(ranges, port)) {
      add(`${asked.what} ${port} is none of ${formatPorts(ranges) || "none"}`);
    }
  }
}

function quotaFindings(
  quota: Quota,
  request: PlacementRequest,
  others: readonly PlacedWorkload[],
  add: (reason: string) => void,
): void {
  const value = Object.hasOwn(request.labels, quota.label) ? request.labels[quota.label] : undefined;
  if (value === undefined) return;
  if (quota.value !== undefined && !glob(quota.value)(value)) return;
  const same = others.filter(({ labels }) =>
    Object.hasOwn(labels, quota.label) && labels[quota.label] === value
  );
  const check = (what: string, asked: number, used: number, most: number | undefined) => {
    if (most === undefined || used + asked <= most) return;
    add(`${quota.label}=${shown(value)} has ${used} of ${most} ${what}, ${asked} more are asked for`);
  };
  check("workloads", 1, same.length, quota.maxWorkloads);
  check("vCPUs", request.milliCpus / 1000, sum(same, (each) => each.milliCpus) / 1000, quota.maxCores);
  check(
    "MiB of memory",
    request.memoryBytes / MEBIBYTE,
    sum(same, (each) => each.memoryBytes) / MEBIBYTE,
    quota.maxMemoryMib,
  );
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}

/** Text from outside, made safe for one line of a message. */
function shown(text: string): string {
  return text.slice(0, MAX_SHOWN).replace(/\p{Cc}/gu, "?");
}
