import type { Point } from "../workspace/point-files.ts";
import type { Degradation, EngineType, IntegrityState, SavePoint } from "../contract/index.ts";

/** A point as the library returns it and `--json` prints it. */
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
    effective_engine: descriptor.effective_engine as EngineType,
    degraded: descriptor.degraded.map(degradationOf),
  };
}

function integrityOf(point: Point): IntegrityState {
  if (point.verification === null) return "unverified";
  return point.verification.ok ? "verified" : "damaged";
}

/** What a point's engine could not do, from how its descriptor tells it. */
export function degradationOf(text: string): Degradation {
  const colon = text.indexOf(": ");
  return colon < 0 ? { what: text, reason: "" } : { what: text.slice(0, colon), reason: text.slice(colon + 2) };
}
