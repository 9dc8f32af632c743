import { isSameToken } from "./token.ts";

/** Who may call. */
export interface GuardPolicy {
  /** Bearer token; absent means none is asked for. */
  token?: string;
  /** Host names, besides loopback ones, that this agent answers to; lower case. */
  hosts: ReadonlySet<string>;
}

/** What a request says about where it comes from. */
export interface RequestFacts {
  host: string | null | undefined;
  origin: string | null | undefined;
  /** `Sec-Fetch-Site`, which every browser of today sends and no script can change. */
  fetchSite: string | null | undefined;
  authorization: string | null | undefined;
}

/** Why a request is refused. */
export interface Refusal {
  kind: "forbidden" | "unauthenticated";
  reason: string;
}

/**
 * Judges a request by its headers. A page in a browser can neither name itself in Host (DNS rebinding), nor come from
 * a foreign origin; nobody gets in without the token. `isPublic` leaves out the token only.
 */
export function judge(
  facts: RequestFacts,
  policy: GuardPolicy,
  options: { isPublic?: boolean } = {},
): Refusal | undefined {
  const host = hostName(facts.host ?? "");
  if (host === undefined || !(isLoopbackName(host) || policy.hosts.has(host))) {
    return { kind: "forbidden", reason: "Cannot answer: the Host header names no address of this agent" };
  }
  if (facts.origin && !isSameOrigin(facts.origin, facts.host!)) {
    return { kind: "forbidden", reason: "Cannot answer: the request comes from a page of another origin" };
  }
  if (facts.fetchSite && facts.fetchSite !== "same-origin" && facts.fetchSite !== "none") {
    return { kind: "forbidden", reason: "Cannot answer: the request comes from a page of another site" };
  }
  if (options.isPublic || policy.token === undefined) return undefined;
  const bearer = /^Bearer +([\x21-\x7e]{1,512})$/i.exec(facts.authorization ?? "")?.[1];
  if (bearer === undefined) {
    return {
      kind: "unauthenticated",
      reason: "Cannot answer without the API token: send Authorization: Bearer TOKEN",
    };
  }
  if (isSameToken(bearer, policy.token)) return undefined;
  return { kind: "unauthenticated", reason: "Cannot accept the API token: it is not this agent's" };
}

/** Host names to accept: the node's name, its base domain, the bind addresses, and on a wildcard those it has. */
export function acceptedHosts(options: {
  nodeName: string;
  baseUrl: string;
  bindHosts: readonly string[];
  interfaceAddresses: readonly string[];
}): Set<string> {
  const { nodeName, baseUrl, bindHosts, interfaceAddresses } = options;
  const isWildcard = bindHosts.some((host) => host === "0.0.0.0" || host === "::");
  const names = [nodeName, baseUrl, ...bindHosts, ...(isWildcard ? interfaceAddresses : [])];
  return new Set(names.map((name) => name.toLowerCase()));
}

/** Whether only this machine can reach this address. */
export function isLoopbackName(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(host);
}

/** The name in a Host header, without port and brackets. */
function hostName(header: string): string | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]/@]+))(?::\d{1,5})?$/.exec(header);
  return (match?.[1] ?? match?.[2])?.toLowerCase();
}

function isSameOrigin(origin: string, host: string): boolean {
  return /^https?:\/\/(.+)$/i.exec(origin)?.[1].toLowerCase() === host.toLowerCase();
}
