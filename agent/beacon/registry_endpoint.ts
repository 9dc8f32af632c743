/** Where an external registry of beacons is. */
export type RegistryEndpoint =
  /** Without a slash at the end. */
  | { kind: "http"; base: string }
  /** IPv6 hosts carry no brackets. */
  | { kind: "tcp"; host: string; port: number };

/** Reads `http://…`, `https://…` or `tcp://host:port`. Throws an Error that says what is wrong. */
export function parseRegistryEndpoint(text: string): RegistryEndpoint {
  const shown = text.slice(0, 200);
  if (!URL.canParse(text)) throw new Error(`"${shown}" is not a URL`);
  const { protocol, hostname, port, username, password, pathname, search, hash, origin } = new URL(text);
  if (username !== "" || password !== "" || search !== "" || hash !== "") {
    throw new Error(`"${shown}" has more than scheme, host, port and path`);
  }
  if (protocol === "http:" || protocol === "https:") {
    return { kind: "http", base: origin + pathname.replace(/\/+$/, "") };
  }
  if (protocol !== "tcp:") throw new Error(`"${shown}" is none of http://, https:// and tcp://`);
  if (hostname === "" || port === "" || port === "0" || (pathname !== "" && pathname !== "/")) {
    throw new Error(`"${shown}" is not tcp://host:port`);
  }
  return { kind: "tcp", host: hostname.replace(/^\[(.*)\]$/, "$1"), port: Number(port) };
}

/** As it was given. */
export function endpointText(endpoint: RegistryEndpoint): string {
  if (endpoint.kind === "http") return endpoint.base;
  const { host, port } = endpoint;
  return `tcp://${host.includes(":") ? `[${host}]` : host}:${port}`;
}
