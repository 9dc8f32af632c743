import { RuntimeError } from "../errors.ts";
import type { SpecUser } from "./spec_types.ts";

/** Most supplementary groups of a user; the kernel's own NGROUPS_MAX is 65536. */
export const MAX_GROUPS = 1024;

/** The image's user database: text of its /etc/passwd and /etc/group, empty where it has none. */
export interface UserFiles {
  passwd: string;
  group: string;
}

/** A user by number, and what /etc/passwd knows besides. */
export interface ResolvedUser extends SpecUser {
  /** Home directory; `/` when it is not known. */
  home: string;
}

/**
 * Resolves `user[:group]`, each by name or number, as Docker does: empty is root; a number need not exist; without a
 * group it is the user's own, with the groups the user is a member of besides; with one there are no others. The
 * main group is among the supplementary ones, so that a group the process drops does not open what it is denied
 * (CVE-2022-36109). Throws `invalid`.
 */
export function resolveUser(text: string, files: UserFiles): ResolvedUser {
  const [userPart, groupPart, ...more] = text.split(":");
  if (more.length > 0 || groupPart === "") throw invalid(text, "it is not user[:group]");
  const entry = findUser(userPart || "0", files.passwd);
  const uid = entry?.uid ?? parseId(userPart || "0");
  if (uid === undefined) throw invalid(text, `there is no user "${userPart}" in the image's /etc/passwd`);
  const groups = parseGroups(files.group);
  if (groupPart === undefined) {
    const member = entry
      ? groups.filter((group) => group.members.includes(entry.name)).map(({ gid }) => gid)
      : [];
    return {
      uid,
      gid: entry?.gid ?? 0,
      additionalGids: [...new Set([entry?.gid ?? 0, ...member])].slice(0, MAX_GROUPS),
      home: entry?.home || "/",
    };
  }
  const gid = groups.find((group) => group.name === groupPart)?.gid ?? parseId(groupPart);
  if (gid === undefined) throw invalid(text, `there is no group "${groupPart}" in the image's /etc/group`);
  return { uid, gid, additionalGids: [gid], home: entry?.home || "/" };
}

interface PasswdEntry {
  name: string;
  uid: number;
  gid: number;
  home: string;
}

/** By name first, then by number: a user may be called "1000". */
function findUser(wanted: string, passwd: string): PasswdEntry | undefined {
  const entries = passwd.split("\n").flatMap((line): PasswdEntry[] => {
    const [name, , uidText = "", gidText = "", , home = ""] = line.trimEnd().split(":");
    const [uid, gid] = [parseId(uidText), parseId(gidText)];
    return name && uid !== undefined && gid !== undefined ? [{ name, uid, gid, home }] : [];
  });
  return entries.find((entry) => entry.name === wanted) ??
    entries.find((entry) => entry.uid === parseId(wanted));
}

function parseGroups(group: string): { name: string; gid: number; members: string[] }[] {
  return group.split("\n").flatMap((line) => {
    const [name, , gidText = "", members = ""] = line.trimEnd().split(":");
    const gid = parseId(gidText);
    return name && gid !== undefined ? [{ name, gid, members: members.split(",") }] : [];
  });
}

/** A user or group id: 0 to 2^32 - 2, since -1 means "no change" to the kernel. */
function parseId(text: string): number | undefined {
  return /^\d{1,10}$/.test(text) && Number(text) < 0xffffffff ? Number(text) : undefined;
}

function invalid(text: string, reason: string): RuntimeError {
  return new RuntimeError("invalid", `Cannot use user "${text.slice(0, 64)}": ${reason}`);
}
