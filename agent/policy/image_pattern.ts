import { parseReference, type Reference } from "../../runtime/image/reference.ts";
import { glob, type Match, pathGlob } from "./pattern.ts";

/** An image reference taken apart; `undefined` when it is none. */
export function parseImageName(text: string): Reference | undefined {
  try {
    return parseReference(text);
  } catch {
    return undefined;
  }
}

/**
 * Compiles a pattern of images: `[registry/]repository[:tag][@digest]`, each part with `*` (not over a `/`) and `**`
 * (over them). What a reference leaves out is filled in as in a reference: no registry means the default one. A
 * pattern without a tag takes every tag and digest. A tag in a pattern never takes a reference by digest, whose tag
 * is decoration.
 */
export function imagePattern(pattern: string): (image: Reference) => boolean {
  const [named, digest] = split(pattern, pattern.indexOf("@"));
  const colon = named.lastIndexOf(":");
  const [path, tag] = split(named, colon > named.lastIndexOf("/") ? colon : -1);
  const matchPath = pathGlob(canonicalPath(path));
  const matchTag: Match | undefined = tag === undefined ? undefined : glob(tag);
  const matchDigest: Match | undefined = digest === undefined ? undefined : glob(digest);
  return (image) => {
    if (!matchPath(`${image.registry}/${image.repository}`)) return false;
    if (matchDigest !== undefined && (image.digest === undefined || !matchDigest(image.digest))) return false;
    if (matchTag === undefined || tag === "*") return true;
    if (matchDigest === undefined && image.digest !== undefined) return false;
    return image.tag !== undefined && matchTag(image.tag);
  };
}

/** Compiles a pattern of repositories: one of images without tag and digest, whatever tag or digest an image has. */
export function repositoryPattern(pattern: string): (image: Reference) => boolean {
  const matchPath = pathGlob(canonicalPath(pattern));
  return (image) => matchPath(`${image.registry}/${image.repository}`);
}

function split(text: string, at: number): [string, string | undefined] {
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

/** As the reference parser fills in what is left out; a path that begins with `**` has any registry. */
function canonicalPath(path: string): string {
  const slash = path.indexOf("/");
  const first = slash < 0 ? "" : path.slice(0, slash);
  if (path.startsWith("**")) return path;
  if (/[.:A-Z[]/.test(first) || first === "localhost") return path;
  // A registry and repository that are always there tell how the parser fills in.
  const { registry, repository } = parseReference(slash < 0 ? "x" : "x/x");
  return slash < 0 ? `${registry}/${repository.slice(0, -1)}${path}` : `${registry}/${path}`;
}
