import type { Aspect, Incomplete, LeftOut } from "../../contract/words.ts";
import { displayPath, printablePath, quotedPath } from "../../fs/paths/safe-path.ts";
import type { CairnError } from "../../errors.ts";
import { readBackupNotes } from "../place/backup-notes.ts";
import type { WorkspacePaths } from "../place/control-layout.ts";
import type { Point } from "./point-files.ts";
import { type ConsistencyLabel, type Descriptor, lackingAspects } from "../../formats/records/descriptor.ts";
import { type Manifest, TAKEN_OUT } from "../../formats/records/manifest.ts";
import { rawPath } from "../../formats/records/record.ts";
import { joinPath } from "../../formats/bytes.ts";
import { IGNORE_FILE } from "../../fs/ignore.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import type { TornEntry, UnwantedEntry } from "../../archive/scan/task.ts";
import { isDiskTrouble, type NotSet } from "../../archive/write/node-writer.ts";

/** An entry that a point or restore lacks, or has otherwise than it was, with the reason. */

export interface LeftOutEntry {
  path: Uint8Array;
  reason:
    | "unreadable"
    | "damaged"
    | "changing"
    | "vanished"
    | "excluded"
    | "mounted"
    | "not_saved"
    | "keep_present"
    | "taken_out"
    | "changed_since"
    | "not_permitted"
    | "io_error";
  detail: string;
  aspects?: string[];
}

const ERRNO_WORDS: Record<string, string> = {
  EACCES: "permission denied",
  EPERM: "not permitted",
  EIO: "the disk could not read it",
  ESTALE: "the file server has lost it",
  ETIMEDOUT: "its mount does not answer",
};

/** For example `permission denied (EACCES)`. Returns other texts unchanged. */
function inWords(reason: string): string {
  const words = ERRNO_WORDS[reason];
  return words === undefined ? reason : `${words} (${reason})`;
}

function omittedEntry(path: Uint8Array, reason: string, before = ""): LeftOutEntry {
  if (reason === TAKEN_OUT) return { path, reason: "taken_out", detail: reason };
  return { path, reason: "unreadable", detail: `${before}${inWords(reason)}` };
}

export function leftOutOf(scan: ScanResult): LeftOutEntry[] {
  const { omitted, torn, mounts, unwanted } = scan.notes;
  return [
    ...omitted.map(({ path, reason }) => omittedEntry(path, reason)),
    ...torn.map(tornEntry),
    ...mounts.map((path) => ({ path, reason: "mounted" as const, detail: "another file system is mounted there" })),
    ...unwantedEntries(unwanted),
  ];
}

/** Lists entries that options leave out. Not secrets, which are reported with those that patterns leave out. */
export function unwantedEntries(found: readonly UnwantedEntry[]): LeftOutEntry[] {
  return found.flatMap(({ path, patterns, detail }) =>
    patterns === null || detail === null ? [] : [{ path, reason: "excluded" as const, detail }],
  );
}

function tornEntry({ path, reason, aspects }: TornEntry): LeftOutEntry {
  if (aspects === undefined) return { path, reason: "changing", detail: reason };
  return { path, reason: "unreadable", detail: reason, aspects: [...aspects] };
}

/** Most entries that are named, since there may be any number. */
export const SHOWN_LEFT_OUT = 100;

/** Lists entries that a point lacks at or below some paths (null: all), because its save could not read them. */
export function lackingIn(lacks: Partial<Lacking> | null, paths: readonly Uint8Array[] | null): LeftOutEntry[] {
  const chosen = new PathSelection(paths ?? [""]);
  const all: LeftOutEntry[] = [
    ...(lacks?.omitted ?? []).map(({ path, reason }) => omittedEntry(path, reason, "it was not saved: ")),
    ...savedWithout(lacks?.labels ?? []),
  ];
  return all.filter(({ path }) => chosen.of(path) !== "no");
}

/** The parts of a manifest about missing and incomplete entries. */
type Lacking = Pick<Manifest, "omitted" | "labels">;

/** Entries of a point that were saved only in part, by their labels. */
export function savedWithout(labels: readonly ConsistencyLabel[]): (LeftOutEntry & { aspects: string[] })[] {
  return labels.flatMap((label) => {
    const aspects = lackingAspects(label);
    if (aspects.length === 0) return [];
    const detail = `it was saved only in part${typeof label["reason"] === "string" ? `: ${label["reason"]}` : ""}`;
    return [{ path: rawPath(label), reason: "unreadable" as const, detail, aspects }];
  });
}

/** Lists entries that a point lacks or has incompletely. The descriptor names only the first ones, and their number. */
export function leftOutOfPoint(descriptor: Descriptor): { entries: LeftOutEntry[]; count: number } {
  const { omitted, omitted_count: unreadable } = descriptor;
  const partial = savedWithout(descriptor.labels);
  const torn = descriptor.labels.filter((each) => each.label === "torn-possible" && lackingAspects(each).length === 0);
  const entries = [
    ...omitted.map((each) => omittedEntry(rawPath(each), each.reason)),
    ...partial,
    ...torn.map((each) => ({
      path: rawPath(each),
      reason: "changing" as const,
      detail: typeof each["reason"] === "string" ? each["reason"] : "it was written to while it was read",
    })),
  ];
  return { entries, count: unreadable + partial.length + torn.length };
}

/** Makes a listener that lists the damaged directories at, above and below some paths (null: all). */
export function noteDamaged(
  list: LeftOutEntry[],
  paths: readonly Uint8Array[] | null,
): (path: Uint8Array, error: CairnError) => void {
  const chosen = new PathSelection(paths ?? [""]);
  return (path, { message }) => {
    if (chosen.of(path) !== "no") list.push({ path, reason: "damaged", detail: message });
  };
}

/** Warns of damaged entries of a point that were left out, and names backups that have them. */
export function warnOfDamaged(
  { found }: { found: { paths: WorkspacePaths } },
  { descriptor: { save_point_id: id } }: Point,
  { leftOut, onWarning }: { leftOut: readonly LeftOutEntry[]; onWarning?: ((message: string) => void) | undefined },
): void {
  const damaged = leftOut.filter(({ reason }) => reason === "damaged");
  if (damaged.length === 0) return;
  const name = quotedPath(damaged[0]!.path);
  const what = damaged.length === 1 ? `${name} is` : `${name} and ${damaged.length - 1} more are`;
  const backups = readBackupNotes(found.paths)
    .filter(({ save_point_id: of }) => of === id)
    .map(({ snapshot_id: snapshot, location }) => `; a backup has it: snapshot ${snapshot.slice(0, 8)} in ${location}`);
  onWarning?.(
    `${what} damaged in the store and left out; \`cairn doctor\` lists the damage, \`cairn history PATH\` lists points with another version${backups.join("")}`,
  );
}

/** Warns of ignore files whose rules are not applied, and of unwanted entries that are part of the point. */
export function warnOfRules(
  { notes: { oddRules, unwanted } }: ScanResult,
  { onWarning }: { onWarning?: ((message: string) => void) | undefined },
): void {
  for (const { path, why } of oddRules.slice(0, 10))
    onWarning?.(`the rules of ${quotedPath(joinPath(path, IGNORE_NAME))} are not applied: ${why}`);
  for (const { path } of unwanted.filter(({ patterns }) => patterns === null))
    onWarning?.(
      `${printablePath(path)} is not left out: its name is not UTF-8, so a pattern for it would also match other names`,
    );
}

const IGNORE_NAME = Buffer.from(IGNORE_FILE);

export function notSetEntry({ path, aspects, detail }: NotSet): LeftOutEntry {
  return { path, reason: isDiskTrouble(detail) ? "io_error" : "not_permitted", detail, aspects };
}

export function publicLeftOut({ path, reason, detail, aspects }: LeftOutEntry): LeftOut {
  return { ...displayPath(path), reason, detail, ...(aspects === undefined ? {} : { aspects: aspects as Aspect[] }) };
}

/** Summarizes the entries that a point lacks; null if the point is complete. */
export function incompleteOf({ descriptor }: Point): Incomplete | null {
  if (descriptor.complete) return null;
  const { entries, count } = leftOutOfPoint(descriptor);
  return { count, left_out: entries.slice(0, SHOWN_LEFT_OUT).map(publicLeftOut) };
}
