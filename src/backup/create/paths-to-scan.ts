import { lstatSync, opendirSync, statSync } from "node:fs";
import { isAbsolute } from "node:path";
import { CairnError, toCairnError } from "../../errors.ts";
import type { IgnoreRecord } from "../../fs/ignore.ts";
import { patternOfPath } from "../../fs/ignore-pattern.ts";
import { nameOf, parentOf } from "../../fs/linux/exchange-folders.ts";
import { isAtOrBelow, joinRaw } from "../../fs/paths/safe-path.ts";
import { requireAnswer } from "../../fs/silent-mounts.ts";
import { realPathOf } from "../../workspace/place/find-workspace.ts";
import { checkLocation } from "../../workspace/place/guards.ts";
import type { LeftOutEntry } from "../../workspace/points/left-out.ts";

/** A folder to scan: all of it if `names` is null, else only those entries directly in it. */
export interface PartToScan {
  folder: Buffer;
  names: readonly Buffer[] | null;
  /** rules that leave out all but the names; null: the folder's own rules count */
  rules: IgnoreRecord | null;
}

/**
 * The folders and files that absolute paths mean, none below another: the real path of a folder; of a link to anything
 * else, the link itself. Lists paths that do not exist or cannot be looked at. Throws `not_found` if none exists, the
 * first error if none can be looked at, `usage`, and `refused` by the guards.
 */
export function partsToScan(paths: readonly string[]): {
  parts: PartToScan[];
  missing: LeftOutEntry[];
  /** their places as text, in order: the paths of the snapshot */
  places: string[];
} {
  const missing: LeftOutEntry[] = [];
  const folders: Buffer[] = [];
  const others: Buffer[] = [];
  let unseen: CairnError | undefined;
  for (const path of paths) {
    if (!isAbsolute(path)) throw new CairnError("usage", `not an absolute path: ${JSON.stringify(path)}`);
    const seen = lookAt(path);
    if (seen === null) missing.push({ path: Buffer.from(path), reason: "vanished", detail: "there is no such path" });
    else if (seen instanceof CairnError) {
      unseen ??= seen;
      missing.push({ path: Buffer.from(path), reason: "unreadable", detail: seen.message });
    } else {
      checkLocation(seen.place, { allow: ["home", "nested", "git"] });
      (seen.isFolder ? folders : others).push(seen.place);
    }
  }
  if (folders.length + others.length === 0 && unseen !== undefined) throw unseen;
  if (folders.length + others.length === 0)
    throw new CairnError(
      "not_found",
      missing.length === 1 ? `${paths[0]} does not exist` : "none of these paths exists",
    );
  const topmost = folders.filter(
    (each, i) => !folders.some((other, j) => isAtOrBelow(each, other) && (!other.equals(each) || j < i)),
  );
  const byParent = new Map<string, Buffer[]>();
  for (const place of others) {
    if (topmost.some((folder) => isAtOrBelow(place, folder))) continue;
    const parent = parentOf(place).toString("latin1");
    byParent.set(parent, [...(byParent.get(parent) ?? []), nameOf(place)]);
  }
  const parts: PartToScan[] = topmost.map((folder) => ({ folder, names: null, rules: null }));
  for (const [parent, names] of byParent)
    parts.push({ folder: Buffer.from(parent, "latin1"), names, rules: onlyThese(names) });
  const all = [...folders, ...others].map((place) => place.toString("utf8"));
  const places = new Set([...all, ...missing.map(({ path }) => Buffer.from(path).toString("utf8"))]);
  return { parts, missing, places: [...places].toSorted() };
}

/** The real place of a path; null if the path is missing, or why it cannot be looked at. Opens a folder once. */
function lookAt(path: string): { place: Buffer; isFolder: boolean } | CairnError | null {
  try {
    requireAnswer(path);
    // A dangling link is saved too.
    const kind = statSync(path, { throwIfNoEntry: false }) ?? lstatSync(path, { throwIfNoEntry: false });
    if (kind === undefined) return null;
    if (!kind.isDirectory()) return { place: realPlace(path), isFolder: false };
    const place = realPathOf(path);
    opendirSync(place).closeSync();
    return { place, isFolder: true };
  } catch (error) {
    const failed = toCairnError(error);
    if (failed.code !== "io" && failed.code !== "permission") throw failed;
    return failed;
  }
}

/** The real path of an entry's parent, with the entry's name. */
function realPlace(path: string): Buffer {
  const place = Buffer.from(path.replace(/(?<=.)\/+$/, ""));
  return joinRaw(realPathOf(parentOf(place)), nameOf(place));
}

/** Rules that leave out all entries of a folder except these names. */
function onlyThese(names: readonly Buffer[]): IgnoreRecord {
  return { excludes: ["/*", ...names.map((name) => `!/${patternOfPath(name)}`)], files: [] };
}
