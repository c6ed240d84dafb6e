import type { Point } from "../workspace/points/point-files.ts";
import { CREDENTIALS } from "../archive/scan/summary.ts";
import type { SaveResult } from "../contract/points.ts";
import type { Degradation, EngineType } from "../workspace/store/engine.ts";
import type { CallOptions, IntegrityState, SavePoint } from "../contract/words.ts";
import type { SavePointId } from "../ids.ts";
import type { ControlPaths } from "../workspace/place/control-layout.ts";
import { allPoints } from "../workspace/points/points.ts";
import { rawPath } from "../formats/records/record.ts";
import { displayPath } from "../fs/paths/safe-path.ts";
import { collectPaced, newPacer } from "../pacer.ts";

/** Converts a point to the form that the library returns and `--json` prints. */
export function publicPoint(point: Point): SavePoint {
  const { descriptor } = point;
  const { files, directories, links, other } = descriptor.entries;
  return {
    save_point_id: descriptor.save_point_id,
    workspace_name: descriptor.workspace_name,
    created_at: descriptor.created_at,
    sequence: point.sequence,
    message: descriptor.message,
    tags: [...point.tags],
    engine: descriptor.engine as EngineType,
    payload_root_hash: descriptor.state_digest,
    descriptor_checksum: point.checksum,
    integrity_state: integrityOf(point),
    parent_id: descriptor.parent_id,
    restored_from: descriptor.restored_from,
    cause: descriptor.cause,
    metadata_digest: descriptor.metadata_digest,
    sealed: point.sealed,
    entries: point.sealed ? files + directories + links + other : null,
    bytes: point.sealed ? descriptor.bytes : null,
    bytes_stored: descriptor.bytes_stored,
    unchanged: descriptor.unchanged,
    complete: descriptor.complete,
    pinned: point.pin !== null,
    labels: descriptor.labels as unknown as SavePoint["labels"],
    labels_known: point.sealed,
    ...(descriptor.rewritten === undefined
      ? {}
      : {
          rewritten: descriptor.rewritten.map((each) => ({
            ...each,
            paths: each.paths.map((path) => displayPath(rawPath(path))),
          })),
        }),
    effective_engine: descriptor.effective_engine as EngineType,
    degraded: descriptor.degraded.map(degradationOf),
  };
}

/** Returns files of a point that look like credentials, from its labels; null until the point is sealed. */
export function secretsOf({ sealed, descriptor: { labels } }: Point): SaveResult["secrets"] {
  if (!sealed) return null;
  return labels.flatMap(({ path, path_b64, label, reason }) =>
    label === CREDENTIALS ? [{ path, ...(path_b64 === undefined ? {} : { path_b64 }), kind: String(reason) }] : [],
  );
}

function integrityOf(point: Point): IntegrityState {
  if (point.verification === null) return "unverified";
  return point.verification.ok ? "verified" : "damaged";
}

/** Parses a limitation of a point's engine from the text in its descriptor. */
export function degradationOf(text: string): Degradation {
  const colon = text.indexOf(": ");
  return colon < 0 ? { what: text, reason: "" } : { what: text.slice(0, colon), reason: text.slice(colon + 2) };
}

const MIN_DIGITS = 8;

/**
 * Returns the shortest prefix of each id, at least 8 digits, that no other point of the control directory has. Ids of
 * missing points are allowed. Reads the point catalogs, not the descriptors.
 */
export async function shortIds(
  control: ControlPaths,
  ids: readonly SavePointId[],
  { signal }: CallOptions,
): Promise<string[]> {
  if (ids.length === 0) return [];
  const wanted = new Map<string, Set<string>>();
  for (const id of ids) wanted.set(id.slice(0, MIN_DIGITS), new Set());
  const others = await collectPaced(sharing(control, [...wanted.keys()]), newPacer(signal));
  for (const id of [...others, ...ids]) wanted.get(id.slice(0, MIN_DIGITS))?.add(id);
  return ids.map((id) => {
    let digits = MIN_DIGITS;
    for (const other of wanted.get(id.slice(0, MIN_DIGITS)) ?? []) {
      if (other !== id) digits = Math.max(digits, commonDigits(id, other) + 1);
    }
    return id.slice(0, digits);
  });
}

function* sharing(control: ControlPaths, prefixes: readonly string[]): Generator<SavePointId> {
  for (const { points } of allPoints(control)) yield* points.idsWith(prefixes);
}

function commonDigits(a: string, b: string): number {
  let digits = 0;
  while (digits < a.length && a[digits] === b[digits]) digits++;
  return digits;
}
