import { createHash } from "node:crypto";
import type { Aspect, DiffEntry, NamedPath } from "../../src/contract/index.ts";
import type { Entries, Entry } from "../fixtures/folder-state.ts";
import { ignoredBy, parentOf, type Rules, without } from "./ignore-rules.ts";

/** What a workspace must be after each call, worked out from plain lists of entries and from git's word on ignore rules. */

/** A point as it must be. */
export interface OraclePoint {
  id: string;
  entries: Entries;
  rules: Rules;
  kind: "save" | "undo";
  pinned: boolean;
  tags: string[];
  /** Its rules are not known: something that they left out stood in a target's way, and was taken in by rules of its own. */
  isOpaque?: boolean;
}

export interface Comparison {
  /** false: times of directories do not count; they move with their entries */
  directoryTimes?: boolean;
  /** false: which names are one file does not count */
  links?: boolean;
}

/** What differs, one line each, at most 20. The root counts by its mode, owner and attributes. */
export function differences(is: Entries, wanted: Entries, how: Comparison = {}): string[] {
  const lines: string[] = [];
  for (const [name, change] of changesBetween(wanted, is)) {
    const aspects = change.aspects.filter(
      (aspect) =>
        !(aspect === "links" && how.links === false) &&
        !(aspect === "times" && how.directoryTimes === false && is.get(name)?.type === "dir"),
    );
    if (change.change === "modified" && aspects.length === 0) continue;
    lines.push(
      `${CALLED[change.change]} ${JSON.stringify(name)} ${aspects.join()}: is ${shown(is.get(name))}, wanted ${shown(wanted.get(name))}`,
    );
  }
  return lines.slice(0, 20);
}

const CALLED = { added: "extra", removed: "missing", modified: "differs" } as const;

function shown(entry: Entry | undefined): string {
  if (entry === undefined) return "nothing";
  const { type, content, mtime, mode, owner, xattrs } = entry;
  return `${type} ${content.slice(0, 60)} ${mode.toString(8)} ${owner} ${mtime} ${xattrs.slice(0, 200)}`;
}

export interface OracleChange {
  change: "added" | "removed" | "modified";
  aspects: Aspect[];
}

/** How one state became another, by path. */
export function changesBetween(from: Entries, to: Entries): Map<string, OracleChange> {
  const changes = new Map<string, OracleChange>();
  const [linkedFrom, linkedTo] = [firstNames(from), firstNames(to)];
  for (const [name, was] of from) {
    const is = to.get(name);
    if (is === undefined) {
      changes.set(name, { change: "removed", aspects: [] });
      continue;
    }
    const aspects = aspectsOf(was, is).filter((aspect) => name !== "" || aspect !== "times");
    const isLinked = was.type === is.type && is.type !== "dir";
    if (isLinked && linkedFrom.get(name) !== linkedTo.get(name)) aspects.push("links");
    if (aspects.length > 0) changes.set(name, { change: "modified", aspects });
  }
  for (const name of to.keys()) if (!from.has(name)) changes.set(name, { change: "added", aspects: [] });
  return changes;
}

function aspectsOf(was: Entry, is: Entry): Aspect[] {
  if (was.type !== is.type) return ["type"];
  const aspects: Aspect[] = [];
  if (was.content !== is.content) aspects.push(is.type === "link" ? "target" : "content");
  if (was.mode !== is.mode) aspects.push("mode");
  if (was.owner !== is.owner) aspects.push("owner");
  if (was.mtime !== is.mtime) aspects.push("times");
  if (was.xattrs !== is.xattrs) aspects.push("xattrs");
  return aspects;
}

/** Of each name the first one of its file, in raw pre-order. */
function firstNames(entries: Entries): Map<string, string> {
  const first = new Map<string, string>();
  const result = new Map<string, string>();
  for (const name of [...entries.keys()].toSorted(inPreorder)) {
    const { inode } = entries.get(name)!;
    if (!first.has(inode)) first.set(inode, name);
    result.set(name, first.get(inode)!);
  }
  return result;
}

function inPreorder(one: string, other: string): number {
  // In latin1 the order of bytes is that of the text; "/" has to come before all of them.
  const [a, b] = [one.replaceAll("/", "\0"), other.replaceAll("/", "\0")];
  return a < b ? -1 : a > b ? 1 : 0;
}

/** What a point made of the folder now holds. */
export function savedEntries(present: Entries, rules: Rules): Entries {
  return without(present, ignoredBy(rules, present));
}

/** The folder after a restore: the target, and of the present what the target's rules leave out, where that is in no one's place. */
export function afterRestore(
  target: OraclePoint,
  present: Entries,
): { wanted: Entries; isMixed: boolean; inTheWay: string[]; kept: Set<string> } {
  const wanted: Entries = new Map(target.entries);
  const inTheWay: string[] = [];
  const kept = new Set<string>();
  for (const name of ignoredBy(target.rules, present)) {
    if (isInTheWay(name, target.entries)) {
      inTheWay.push(name);
      continue;
    }
    wanted.set(name, present.get(name)!);
    // Directories stay for what they hold; of which time they are is nobody's matter.
    for (let way = parentOf(name); way !== null && !wanted.has(way); way = parentOf(way)) {
      wanted.set(way, present.get(way)!);
      kept.add(way);
    }
  }
  return { wanted, isMixed: wanted.size > target.entries.size, inTheWay, kept };
}

/** The target has something else there, or no directory where it lies. */
function isInTheWay(name: string, target: Entries): boolean {
  for (let way = parentOf(name); way !== null; way = parentOf(way)) {
    const there = target.get(way);
    if (there !== undefined && there.type !== "dir") return true;
  }
  return target.has(name);
}

/** What differs from {@link afterRestore}; where the rules are not known, only of what the target has. */
export function notRestored(is: Entries, target: OraclePoint, present: Entries): string[] {
  if (target.isOpaque === true) {
    const some = new Map([...is].filter(([name]) => target.entries.has(name)));
    return differences(some, target.entries, { directoryTimes: false, links: false });
  }
  const { wanted, isMixed, kept } = afterRestore(target, present);
  const lines = differences(is, wanted, { links: !isMixed });
  return lines.filter((line) => ![...kept].some((name) => line.startsWith(`differs ${JSON.stringify(name)} `)));
}

/** What the point that a restore makes of the present holds; null where that depends on what stood in the target's way. */
export function undoEntries(target: OraclePoint, present: Entries): Entries | null {
  if (target.isOpaque === true) return null;
  const { inTheWay } = afterRestore(target, present);
  return inTheWay.length > 0 ? null : savedEntries(present, target.rules);
}

/** One path of those asked for, what lies below, and what leads there. */
export function areaOf(paths: readonly string[]): {
  isNamed: (name: string) => boolean;
  leadsThere: (name: string) => boolean;
} {
  return {
    isNamed: (name) => paths.some((each) => name === each || name.startsWith(`${each}/`)),
    leadsThere: (name) => paths.some((each) => each.startsWith(`${name}/`)) || name === "",
  };
}

/** What a restore of those paths did that it should not have, or did not do. */
export function notRestoredInPart(
  is: Entries,
  { target, before, paths }: { target: OraclePoint; before: Entries; paths: readonly string[] },
): string[] {
  const { isNamed, leadsThere } = areaOf(paths);
  const isElse = (name: string): boolean =>
    !isNamed(name) && !leadsThere(name) && !madeRoom(name, { target: target.entries, before, paths });
  const some = (entries: Entries, which: (name: string) => boolean): Entries =>
    new Map([...entries].filter(([name]) => which(name)));
  const loosely = { directoryTimes: false, links: false };
  const { wanted } = afterRestore(target, before);
  return [
    ...differences(some(is, isElse), some(before, isElse), loosely).map((line) => `not named: ${line}`),
    ...differences(some(is, isNamed), some(wanted, isNamed), loosely).map((line) => `named: ${line}`),
  ];
}

/** It stood where a named entry of the target needs a directory. */
function madeRoom(
  name: string,
  { target, before, paths }: { target: Entries; before: Entries; paths: readonly string[] },
): boolean {
  return paths.some((each) => {
    if (!target.has(each)) return false;
    for (let way = parentOf(each); way !== null; way = parentOf(way))
      if ((name === way || name.startsWith(`${way}/`)) && before.get(way)?.type !== "dir") return true;
    return false;
  });
}

/** Whether a list of changes is the one between two states; what is wrong with it. */
export function wrongChanges(listed: readonly DiffEntry[], from: Entries, to: Entries): string[] {
  const said = new Map<string, OracleChange>();
  const wrong: string[] = [];
  const add = (name: string, change: OracleChange): void => {
    const other = said.get(name);
    // A thing of another type is one that went and one that came.
    if (other !== undefined && other.change !== change.change)
      said.set(name, { change: "modified", aspects: ["type"] });
    else if (other !== undefined) wrong.push(`${JSON.stringify(name)} is listed twice`);
    else said.set(name, change);
  };
  for (const entry of listed) {
    if (entry.change === "not_kept") wrong.push(`${JSON.stringify(entry.path)} is hidden by a rule`);
    else if (entry.change !== "renamed") add(rawPath(entry), { change: entry.change, aspects: entry.aspects });
    else {
      add(
        rawPath({
          path: entry.from_path!,
          ...(entry.from_path_b64 === undefined ? {} : { path_b64: entry.from_path_b64 }),
        }),
        { change: "removed", aspects: [] },
      );
      add(rawPath(entry), { change: "added", aspects: [] });
    }
  }
  const real = changesBetween(from, to);
  const hadComings = new Set(
    [...real]
      .filter(
        ([, { change, aspects }]) => change !== "modified" || aspects.includes("type") || aspects.includes("links"),
      )
      .map(([name]) => parentOf(name) ?? ""),
  );
  for (const name of new Set([...real.keys(), ...said.keys()])) {
    const [is, was] = [said.get(name), real.get(name)];
    if (isSameChange(is, was)) continue;
    // A directory's time follows from its entries, and need not be said.
    const isFollowing = was?.aspects.join() === "times" && is === undefined && hadComings.has(name);
    if (!isFollowing) wrong.push(`${JSON.stringify(name)} is said to be ${shownChange(is)} and is ${shownChange(was)}`);
  }
  return wrong;
}

/** Which names are one file is compared by what is the same, not by which of them is the first. */
function isSameChange(one: OracleChange | undefined, other: OracleChange | undefined): boolean {
  const said = (change: OracleChange | undefined): string => {
    const aspects = change?.aspects.filter((aspect) => aspect !== "links") ?? [];
    if (change === undefined || (change.change === "modified" && aspects.length === 0)) return "";
    if (change.change === "modified" && aspects.includes("type")) return "type";
    return `${change.change} ${aspects.toSorted().join()}`;
  };
  return said(one) === said(other);
}

function shownChange(change: OracleChange | undefined): string {
  return change === undefined ? "the same" : `${change.change} ${change.aspects.join()}`.trim();
}

export function rawPath(named: NamedPath): string {
  return (named.path_b64 === undefined ? Buffer.from(named.path) : Buffer.from(named.path_b64, "base64")).toString(
    "latin1",
  );
}

/** One digest for one state and one state for one digest, over everything that a process sees. */
export class DigestTable {
  readonly #digestOf = new Map<string, string>();
  readonly #stateOf = new Map<string, string>();

  /** What is wrong, or null. */
  add(entries: Entries, digests: { state: string; meta: string }): string | null {
    return (
      this.#addOne(`state ${stateKey(entries)}`, digests.state) ??
      this.#addOne(`meta ${metaKey(entries)}`, digests.meta)
    );
  }

  #addOne(key: string, digest: string): string | null {
    const [other, state] = [this.#digestOf.get(key), this.#stateOf.get(digest)];
    this.#digestOf.set(key, digest);
    this.#stateOf.set(digest, key);
    if (other !== undefined && other !== digest) return `equal states have the digests ${other} and ${digest}`;
    return state !== undefined && state !== key ? `${digest} is the digest of two states` : null;
  }
}

function stateKey(entries: Entries): string {
  return keyOf(entries, (name, { type, mode, content }) => [name, type, mode, content]);
}

const DIGESTED = /^(?:user\.|system\.posix_acl_|security\.capability=)/;

function metaKey(entries: Entries): string {
  const first = firstNames(entries);
  const count = new Map<string, number>();
  for (const name of first.values()) count.set(name, (count.get(name) ?? 0) + 1);
  return keyOf(entries, (name, { type, mode, content, mtime, owner, xattrs }) => {
    const attributes = xattrs.split(" ").filter((each) => DIGESTED.test(each));
    const linked = count.get(first.get(name)!)! > 1 ? first.get(name) : null;
    return [name, type, mode, content, `${mtime}`, owner, attributes, linked];
  });
}

function keyOf(entries: Entries, facts: (name: string, entry: Entry) => unknown): string {
  const hash = createHash("sha256");
  for (const name of [...entries.keys()].toSorted(inPreorder))
    if (name !== "") hash.update(JSON.stringify(facts(name, entries.get(name)!)));
  return hash.digest("hex");
}
