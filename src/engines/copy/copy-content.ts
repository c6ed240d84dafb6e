import { comparePaths, ByteWriter, hex } from "../../formats/bytes.ts";
import type { RootMetadata as RecordedRoot } from "../../formats/descriptor.ts";
import { encodeManifest, type Manifest } from "../../formats/manifest.ts";
import { rawPath } from "../../formats/record.ts";
import type { AmendRequest, HeadContent, PointContent, RootMetadata, StageRequest } from "../engine.ts";
import { recordedRoot } from "../root-metadata.ts";
import { labelsOf } from "../scan/labels.ts";
import type { ScanResult } from "../scan/scan.ts";
import type { ScanSummary } from "../scan/summary.ts";

/** What a point of this engine needs to be found again; part of its descriptor. */
export interface CopyContent extends PointContent {
  snapshot_tree: string;
  snapshot: string;
  root: RecordedRoot;
}

/** Head, when the folder is just as head has it, itself and all that a manifest says: then nothing need be made anew. */
export function sameAsHead({ head }: StageRequest, scanned: ScanResult, root: RootMetadata): HeadContent | null {
  if (
    head === null ||
    head.content.tree !== hex(scanned.tree) ||
    head.metadataDigest !== hex(scanned.meta) ||
    !head.complete
  )
    return null;
  // What was read again may have other holes with the same content.
  if (scanned.notes.omitted.length + scanned.notes.torn.length + scanned.notes.filesRead > 0) return null;
  const was = (head.content as CopyContent).root;
  const now = recordedRoot(root);
  const keys = [...Object.keys(now), "acl_group"] as (keyof RecordedRoot)[];
  return keys.every((key) => was[key] === now[key]) ? head : null;
}

/** A manifest whose edited entries have the holes and hashes of what took their place. */
export function amendedManifest(
  manifest: Manifest,
  more: { edits: AmendRequest["edits"]; summary: ScanSummary },
): Uint8Array {
  const edited = new Set(more.edits.map(({ path: where }) => hex(where)));
  const places = new Map(more.edits.map(({ path: where, name }) => [hex(name), where]));
  const moved = <T extends { path: Uint8Array }>(list: readonly T[]): T[] =>
    list.flatMap((item) => {
      const where = places.get(hex(item.path));
      return where === undefined ? [] : [{ ...item, path: where }];
    });
  const merged = <T extends { path: Uint8Array }>(old: readonly T[], now: readonly T[]): T[] =>
    [...old.filter((item) => !edited.has(hex(item.path))), ...moved(now)].toSorted((a, b) =>
      comparePaths(a.path, b.path),
    );
  const writer = new ByteWriter(4096);
  encodeManifest(writer, {
    ...manifest,
    stateDigest: null,
    metadataDigest: null,
    labels: manifest.labels.filter((label) => !edited.has(hex(rawPath(label)))),
    holeMaps: merged(manifest.holeMaps, more.summary.holes),
    fileHashes: merged(manifest.fileHashes, more.summary.hashes),
    lossless: merged(manifest.lossless, more.summary.lossless),
  });
  return Uint8Array.from(writer.view());
}

/** `known`: what was said of the tree's entries before it was read. */
export function manifestOf(
  result: ScanResult,
  summary: ScanSummary,
  { labels: known = [], crossMounts }: Pick<StageRequest, "labels" | "crossMounts">,
): Uint8Array {
  const writer = new ByteWriter(4096);
  const { notes } = result;
  const labels = [...known, ...labelsOf(notes)];
  encodeManifest(writer, {
    stateDigest: hex(result.state),
    metadataDigest: hex(result.meta),
    complete: notes.omitted.length === 0 && !labels.some(({ label }) => label === "torn-possible"),
    entries: summary.entries,
    labels: labels.toSorted((a, b) => comparePaths(rawPath(a), rawPath(b))),
    holeMaps: summary.holes.toSorted((a, b) => comparePaths(a.path, b.path)),
    fileHashes: summary.hashes.toSorted((a, b) => comparePaths(a.path, b.path)),
    omitted: notes.omitted,
    lossless: summary.lossless.toSorted((a, b) => comparePaths(a.path, b.path)),
    ...(crossMounts || notes.mounts.length > 0 ? { mounts: { entered: crossMounts, leftOut: notes.mounts } } : {}),
  });
  return Uint8Array.from(writer.view());
}
