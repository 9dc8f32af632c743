import { RuntimeError } from "../errors.ts";
import type { Reference } from "./reference.ts";

/** One base URL under which a registry's `/v2/` API may be found. */
export interface Endpoint {
  /** Without a slash at the end. */
  baseUrl: string;
  /** Whose credentials are meant: the registry of the reference, or the mirror's host. */
  credentialsHost: string;
  isMirror: boolean;
  /** HTTPS is tried in the hope of it; the same host in plain HTTP comes next. */
  hasPlainAlternative: boolean;
}

export interface EndpointOptions {
  /** Registry host to the base URLs tried before it. */
  mirrors: Readonly<Record<string, readonly string[]>>;
  /** Hosts, with port where one is meant, that may be spoken to in plain HTTP besides loopback. */
  insecureRegistries: readonly string[];
}

/** Docker Hub answers the registry API under this name. */
const DOCKER_HUB_API = "registry-1.docker.io";

/** Where to look for a reference, in order: mirrors, then the registry by HTTPS, then, where allowed, by plain HTTP. */
export function endpointsOf(reference: Reference, options: EndpointOptions): Endpoint[] {
  const mirrors = (options.mirrors[reference.registry] ?? []).map((mirror): Endpoint => {
    const url = parseMirror(mirror);
    requireAllowedScheme(url, options.insecureRegistries);
    return {
      baseUrl: url.href.replace(/\/+$/, ""),
      credentialsHost: url.host,
      isMirror: true,
      hasPlainAlternative: false,
    };
  });
  const host = reference.registry === "docker.io" ? DOCKER_HUB_API : reference.registry;
  const schemes = mayBePlain(host, options.insecureRegistries) ? ["https", "http"] : ["https"];
  const own = schemes.map((scheme): Endpoint => ({
    baseUrl: `${scheme}://${host}`,
    credentialsHost: reference.registry,
    isMirror: false,
    hasPlainAlternative: scheme === "https" && schemes.length > 1,
  }));
  return [...mirrors, ...own];
}

/** Throws `precondition` when a URL is plain HTTP and its host has not been allowed that. */
export function requireAllowedScheme(url: URL, insecureRegistries: readonly string[]): void {
  if (url.protocol === "https:") return;
  if (url.protocol === "http:" && mayBePlain(url.host, insecureRegistries)) return;
  throw new RuntimeError(
    "precondition",
    `Cannot reach registry "${url.host}": plain HTTP is for loopback and --insecure-registry hosts only`,
  );
}

/** Whether a `host[:port]` may be spoken to without TLS: loopback literals and names, and what the operator lists. */
export function mayBePlain(host: string, insecureRegistries: readonly string[]): boolean {
  if (insecureRegistries.includes(host)) return true;
  const name = host.replace(/:\d+$/, "").replace(/^\[|\]$/g, "");
  return name === "localhost" || name === "::1" || /^127(?:\.\d{1,3}){3}$/.test(name) ||
    insecureRegistries.includes(name);
}

function parseMirror(text: string): URL {
  try {
    return new URL(/^https?:\/\//.test(text) ? text : `https://${text}`);
  } catch (cause) {
    throw new RuntimeError("invalid", `Cannot use registry mirror "${text}": it is not a URL`, { cause });
  }
}
