import { RuntimeError } from "../errors.ts";

/** Longest reference that is looked at, in characters; the specification's limit for a name is 255. */
export const MAX_REFERENCE_LENGTH = 512;
const MAX_NAME_LENGTH = 255;

/** A parsed image reference; `name` is its canonical spelling and containerd's key for the image. */
export interface Reference {
  /** `host[:port]` as written; `docker.io` when the reference names none. */
  registry: string;
  /** `library/nginx`. */
  repository: string;
  tag?: string;
  digest?: string;
  /** `docker.io/library/nginx:latest`, or with `@sha256:…`. */
  name: string;
}

const HOST =
  /^(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::([0-9]{1,5}))?$/;
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;

/**
 * Parses an image reference by the grammar of the OCI distribution spec and Docker's familiar names: no registry means
 * `docker.io`, one path component there means `library/`, neither tag nor digest means `latest`.
 *
 * Throws `invalid` with the reference and what is wrong with it.
 *
 * @example
 * ```ts
 * import { parseReference } from "./reference.ts";
 * console.assert(parseReference("nginx").name === "docker.io/library/nginx:latest");
 * ```
 */
export function parseReference(text: string): Reference {
  const refuse = (reason: string): never => {
    throw new RuntimeError(
      "invalid",
      `Cannot use image ${JSON.stringify(text.slice(0, MAX_NAME_LENGTH))}: ${reason}`,
    );
  };
  if (text === "") refuse("the reference is empty");
  if (text.length > MAX_REFERENCE_LENGTH) {
    refuse(`the reference is longer than ${MAX_REFERENCE_LENGTH} characters`);
  }
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(text)) refuse("a reference has no scheme such as https://");

  let rest = text;
  let digest: string | undefined;
  const at = rest.indexOf("@");
  if (at >= 0) {
    digest = rest.slice(at + 1);
    rest = rest.slice(0, at);
    if (!DIGEST.test(digest)) refuse("the digest is not sha256: and 64 lower-case hex digits");
  }
  let tag: string | undefined;
  const colon = rest.lastIndexOf(":");
  if (colon > rest.lastIndexOf("/")) {
    tag = rest.slice(colon + 1);
    rest = rest.slice(0, colon);
    if (!TAG.test(tag)) {
      refuse(`the tag ${JSON.stringify(tag)} is not 1 to 128 letters, digits, "_", "." or "-"`);
    }
  }
  const slash = rest.indexOf("/");
  const first = slash < 0 ? "" : rest.slice(0, slash);
  const hasRegistry = first !== "" && (/[.:A-Z[]/.test(first) || first === "localhost");
  let registry = hasRegistry ? first : "docker.io";
  if (registry === "index.docker.io") registry = "docker.io";
  let repository = hasRegistry ? rest.slice(slash + 1) : rest;
  const host = HOST.exec(registry);
  if (host === null || (host[1] !== undefined && (Number(host[1]) < 1 || Number(host[1]) > 65535))) {
    refuse(`${JSON.stringify(registry)} is not a registry host`);
  }
  if (repository === "") refuse("the repository is missing");
  for (const component of repository.split("/")) {
    if (COMPONENT.test(component)) continue;
    refuse(
      component === ""
        ? "the repository has an empty path component"
        : `the repository's ${
          JSON.stringify(component)
        } may hold lower-case letters and digits with ".", "_", "__" or "-" between`,
    );
  }
  if (registry === "docker.io" && !repository.includes("/")) repository = `library/${repository}`;
  if (registry.length + 1 + repository.length > MAX_NAME_LENGTH) {
    refuse(`the name is longer than ${MAX_NAME_LENGTH} characters`);
  }
  if (tag === undefined && digest === undefined) tag = "latest";
  const name = `${registry}/${repository}${tag === undefined ? "" : `:${tag}`}${
    digest === undefined ? "" : `@${digest}`
  }`;
  return { registry, repository, tag, digest, name };
}
