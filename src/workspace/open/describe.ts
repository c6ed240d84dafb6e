import { isDeepStrictEqual } from "node:util";
import { namespaceIds } from "../../fs/linux/user-namespace.ts";
import { joinPath } from "../../formats/bytes.ts";
import type { ContentWithout } from "../store/content-without.ts";
import { listedNames, printablePath } from "../../fs/paths/safe-path.ts";
import { labelsOf, withLabels } from "../../archive/scan/summary.ts";
import type { Attachments, StagedContent } from "../store/engine.ts";
import type { RootMetadata } from "../../archive/write/root-metadata.ts";
import { type Cause, type Descriptor, MAX_OMITTED, omittedOf } from "../../formats/records/descriptor.ts";
import type { SealedState, SealFile } from "../../formats/records/seal-file.ts";
import { rawPath, recordPath } from "../../formats/records/record.ts";
import { IGNORE_FILE, type IgnoreRecord, MAX_IGNORE_FILE_BYTES } from "../../fs/ignore.ts";
import { type SavePointId } from "../../ids.ts";
import { rulesOfRequest } from "../../archive/scan/directory-rules.ts";
import { patternsOfUnwanted } from "../../archive/scan/unwanted.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import { leftOutOf } from "../points/left-out.ts";
import { withSpan } from "../points/agent-events.ts";
import type { Point } from "../points/point-files.ts";
import { isSameRoot, rootOfContent, rootOfPoint } from "../points/root-changes.ts";
import type { Workspace } from "./workspace.ts";

/** Makes the descriptors and seals of points. */

/**
 * Tells if a folder equals head. Digests are compared, too, since trees lack some facts, such as which pipes are hard
 * links. A fact that is unknown of head counts as equal.
 */
export function isUnchanged(
  head: Point | null,
  { tree, meta }: Pick<ScanResult, "tree" | "meta">,
  root: RootMetadata | null,
): boolean {
  if (head === null || head.descriptor.content.tree !== Buffer.from(tree).toString("hex")) return false;
  if (!isSameRoot(rootOfPoint(head), root)) return false;
  const { metadata_digest: digest } = head.descriptor;
  return digest === null || digest === Buffer.from(meta).toString("hex");
}

/** Tells if the staged content equals a point, and neither of them lacks or ignores entries: then a restore has nothing to do. */
export function isAsRecorded(point: Point, { scan, content }: StagedContent): boolean {
  const { complete, metadata_digest: digest } = point.descriptor;
  const isWhole = point.sealed && complete && digest !== null && scan.notes.ignoredCount === 0;
  return isWhole && leftOutOf(scan).length === 0 && isUnchanged(point, scan, rootOfContent(content));
}

/** The part of a descriptor that does not depend on the engine: ids, place in the history, cause. */
export function pointFacts(
  workspace: Workspace,
  input: {
    message?: string | undefined;
    id?: string | undefined;
    tags?: readonly string[] | undefined;
    cause?: Cause | undefined;
    createdAt?: string | undefined;
    attachments?: readonly Attachments[];
  },
  { id, sequence, head }: { id: SavePointId; sequence: number; head: Point | null },
): Pick<
  Descriptor,
  | "save_point_id"
  | "workspace_id"
  | "workspace_name"
  | "sequence"
  | "created_at"
  | "message"
  | "tags"
  | "chosen_id"
  | "parent_id"
  | "restored_from"
  | "cause"
  | "namespace"
  | "rows"
> {
  const latest = workspace.points.latest();
  const detached =
    head !== null && latest !== null && latest.descriptor.save_point_id !== head.descriptor.save_point_id;
  const createdAt = input.createdAt ?? new Date().toISOString();
  const namespace = namespaceIds();
  const rows = rowsOf(input);
  return {
    save_point_id: id,
    workspace_id: workspace.found.workspace.id,
    workspace_name: workspace.found.workspace.name,
    sequence,
    created_at: createdAt,
    message: withSpan(input.message ?? "", input.cause, createdAt),
    tags: [...new Set(input.tags ?? [])],
    ...(input.id === undefined ? {} : { chosen_id: input.id }),
    parent_id: head?.descriptor.save_point_id ?? null,
    restored_from: detached ? head.descriptor.save_point_id : null,
    cause: input.cause ?? { kind: "person" },
    ...(rows.length === 0 ? {} : { rows }),
    ...(namespace === null ? {} : { namespace: { uids: [...namespace.uids], gids: [...namespace.gids] } }),
  };
}

/** Returns the queries of a save, as its point records them. */
export function rowsOf({
  attachments = [],
}: {
  attachments?: readonly Attachments[];
}): NonNullable<Descriptor["rows"]> {
  return attachments.flatMap(({ database, folder, query }) =>
    query === null ? [] : [{ database: recordPath(database), folder: recordPath(folder), query }],
  );
}

/** False if a save has queries that a point does not record: then an unchanged folder gets a point, too. */
export function hasRowsOf(
  { descriptor }: Pick<Point, "descriptor">,
  input: { attachments?: readonly Attachments[] },
): boolean {
  const rows = rowsOf(input);
  return rows.length === 0 || isDeepStrictEqual(rows, descriptor.rows);
}

/** The part of a descriptor or seal that comes from reading the tree. */
export function sealedStateOf(
  { scan, summary, bytesStored }: StagedContent,
  more: {
    exclude?: readonly string[] | undefined;
    crossMounts?: boolean | undefined;
    rules: IgnoreRecord | null;
    unchanged: boolean;
    still?: readonly Uint8Array[];
  },
): SealedState {
  const { notes } = scan;
  const excludes = [...patternsOfUnwanted(notes.unwanted), ...(more.exclude ?? [])];
  const rules = rulesOfRequest({ excludes, rules: more.rules }).record(
    notes.ignoreFiles.map(({ path, text }) => ({
      directory: Buffer.from(path).toString("latin1"),
      text: Buffer.from(text).toString("latin1"),
    })),
  );
  return {
    state_digest: Buffer.from(scan.state).toString("hex"),
    metadata_digest: Buffer.from(scan.meta).toString("hex"),
    complete: notes.omitted.length === 0 && notes.torn.length === 0,
    entries: summary.entries,
    bytes: summary.bytes,
    bytes_stored: bytesStored,
    unchanged: more.unchanged,
    labels: labelsOf(notes, summary, more.still),
    ...omittedOf(notes.omitted),
    rules: {
      ignore_file: more.rules === null,
      exclude: rules.excludes,
      files: rules.files,
      ignored_count: notes.ignoredCount,
      ignored_sample: notes.ignored.slice(0, 20).map((path) => recordPath(Buffer.from(path, "latin1"))),
      ...(more.crossMounts === true ? { cross_mounts: true } : {}),
    },
  };
}

/** Raw paths of databases to which nothing was written while a point's tree was made. */
export function stillDatabases({ content }: Pick<Descriptor, "content">): Uint8Array[] {
  return (content.held?.still ?? []).map(rawPath);
}

/** Makes the seal of a point. `parent`: the sealed point before it. */
export function sealOf(
  point: Point,
  staged: StagedContent,
  { parent, rules }: { parent: Point | null; rules: IgnoreRecord | null },
): SealFile {
  const { descriptor } = point;
  const { tree, snapshot_tree: top, stored_tree: stored, snapshot } = staged.content as unknown as SealFile["content"];
  const read = sealedStateOf(staged, {
    exclude: descriptor.rules.exclude,
    rules,
    still: stillDatabases(descriptor),
    unchanged: descriptor.unchanged || isUnchanged(parent, staged.scan, rootOfContent(descriptor.content)),
  });
  return {
    save_point_id: descriptor.save_point_id,
    sealed_at: new Date().toISOString(),
    content: { tree, snapshot_tree: top, ...(stored === undefined ? {} : { stored_tree: stored }), snapshot },
    ...read,
    // The tree does not show findings of the capture.
    complete: descriptor.complete && read.complete,
    labels: withLabels(descriptor.labels, read.labels),
  };
}

/** Returns the state of a point without removed paths; `at`: time of the removal, RFC 3339. */
export function stateWithout(
  { descriptor }: Point,
  without: ContentWithout,
  { at, isGone }: { at: string; isGone: (path: Uint8Array) => boolean },
): SealedState {
  const kept = <T extends { path: string; path_b64?: string }>(list: readonly T[]): T[] =>
    list.filter((each) => !isGone(rawPath(each)));
  const { rules, state_digest: before, omitted_count: count } = descriptor;
  const omitted = kept(descriptor.omitted);
  // The rules contain the text of ignore files, so removed ones must go.
  const files = rules.files?.filter((each) => !isGone(joinPath(rawPath(each), Buffer.from(IGNORE_FILE))));
  return {
    state_digest: before === null ? null : without.stateDigest,
    metadata_digest: descriptor.metadata_digest === null ? null : without.metadataDigest,
    complete: descriptor.complete,
    entries: without.entries,
    bytes: without.bytes,
    bytes_stored: descriptor.bytes_stored,
    unchanged: descriptor.unchanged,
    labels: kept(descriptor.labels),
    omitted,
    omitted_count: count - descriptor.omitted.length + omitted.length,
    rules: { ...rules, ...(files === undefined ? {} : { files }), ignored_sample: kept(rules.ignored_sample) },
    rewritten: [
      ...(descriptor.rewritten ?? []),
      { at, paths: without.removed.slice(0, MAX_OMITTED).map(recordPath), digest_before: before },
    ],
  };
}

/** Warns of ignore files that were too long to be read when the tree was taken: they hid nothing. */
export function warnOfLongRules(
  directories: readonly Uint8Array[],
  {
    save_point_id: id,
    onWarning,
  }: Pick<Descriptor, "save_point_id"> & { onWarning?: ((message: string) => void) | undefined },
): void {
  if (directories.length === 0) return;
  const names = listedNames(directories.map((each) => printablePath(joinPath(each, Buffer.from(IGNORE_FILE)))));
  onWarning?.(
    `${names}: ignore files of more than ${MAX_IGNORE_FILE_BYTES} bytes are not read, so the point ${id.slice(0, 8)} also has the files that they would ignore`,
  );
}

/** Tells which databases a save has compared with those of its snapshot: in a clone no change time is the file's own. */
export function saveOf({ content: { held }, labels }: Point["descriptor"]): {
  save?: { began: number; compared: Uint8Array[] };
} {
  if (held?.engine !== "btrfs-snapshot") return {};
  const compared = [...(held.still ?? []), ...labels].map(rawPath);
  return { save: { began: Date.parse(held.at), compared } };
}
