import type { Candidate, PlacedWorkload, PlacementRequest } from "./facts.ts";
import { imagePattern, parseImageName } from "./image_pattern.ts";
import { glob } from "./pattern.ts";
import type { Selector } from "./policy.ts";

/** How many workloads that a selector means there are, by domain: a node, or all nodes with the same value of a tag. */
export interface Tally {
  /** The domain of a node; `undefined` when it lacks the tag. */
  domainOf(node: Candidate): string | undefined;
  /** Workloads in a domain. */
  count(domain: string): number;
}

/** Counts, over all nodes, what a selector means for this request. */
export function tally(selector: Selector, request: PlacementRequest, nodes: readonly Candidate[]): Tally {
  const isMeant = compileSelector(selector, request);
  const { tag } = selector;
  const domainOf = tag === undefined
    ? (node: Candidate) => node.id
    : (node: Candidate) => Object.hasOwn(node.tags, tag) ? node.tags[tag] : undefined;
  const counts = new Map<string, number>();
  for (const node of nodes) {
    const domain = domainOf(node);
    if (domain === undefined) continue;
    let count = 0;
    for (const workload of node.workloads) {
      if (workload.id !== request.id && isMeant(workload)) count++;
    }
    if (count > 0) counts.set(domain, (counts.get(domain) ?? 0) + count);
  }
  return { domainOf, count: (domain) => counts.get(domain) ?? 0 };
}

/** Whether a workload is meant. */
export function compileSelector(
  selector: Selector,
  request: PlacementRequest,
): (workload: PlacedWorkload) => boolean {
  const tests: ((workload: PlacedWorkload) => boolean)[] = [];
  const { workload: named, image, labels, sameLabels } = selector;
  if (named !== undefined) {
    const matches = glob(named);
    tests.push(({ id, name }) => matches(id) || (name !== undefined && matches(name)));
  }
  if (image !== undefined) {
    const matches = imagePattern(image);
    const known = new Map<string, boolean>();
    tests.push((workload) => {
      let isMatch = known.get(workload.image);
      if (isMatch === undefined) {
        const parsed = parseImageName(workload.image);
        known.set(workload.image, isMatch = parsed !== undefined && matches(parsed));
      }
      return isMatch;
    });
  }
  for (const [key, pattern] of Object.entries(labels ?? {})) {
    const matches = glob(pattern);
    tests.push((workload) => Object.hasOwn(workload.labels, key) && matches(workload.labels[key]));
  }
  for (const key of sameLabels ?? []) {
    const wanted = Object.hasOwn(request.labels, key) ? request.labels[key] : undefined;
    tests.push((workload) =>
      wanted !== undefined && Object.hasOwn(workload.labels, key) && workload.labels[key] === wanted
    );
  }
  if (tests.length === 1) return tests[0];
  return (workload) => tests.every((test) => test(workload));
}

/** A selector in words. */
export function selectorText(selector: Selector): string {
  const { workload, image, labels, sameLabels, tag } = selector;
  const parts = [
    ...workload === undefined ? [] : [workload],
    ...image === undefined ? [] : [`image ${image}`],
    ...Object.entries(labels ?? {}).map(([key, value]) => `${key}=${value}`),
    ...(sameLabels ?? []).map((key) => `the same ${key}`),
  ];
  return `${parts.join(", ") || "any"}${tag === undefined ? "" : ` by ${tag}`}`;
}
