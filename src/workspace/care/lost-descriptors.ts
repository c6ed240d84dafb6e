import fs from "node:fs";
import path from "node:path";
import type { StoppableCall } from "../store/engine.ts";
import type { StoreFinding } from "../store/store-care.ts";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { type Descriptor, omittedOf } from "../../formats/records/descriptor.ts";
import { durableRename, durableWrite } from "../../fs/durable.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { SavePointId } from "../../ids.ts";
import { encodeDescriptorFile } from "../points/point-files.ts";
import type { DamagedPoint } from "../points/points.ts";
import { rebuiltRules } from "../save/receive.ts";
import { type PointRemains, pointRemains } from "../store/point-remains.ts";
import { verifyStore } from "../store/verify-store.ts";
import { descriptorFinding, type ReadablePoints, readable, unreadable } from "./doctor-points.ts";
import type { Workspace } from "../open/workspace.ts";

const LOST_WITH_IT =
  "the descriptor is written again from the point's snapshot, with the ignore rules of the ignore files in the snapshot. Lost are the message, tags, cause and parent, the mark of an undo point, and the exclusions of the save: a restore of this point moves excluded files into its undo point";

/** Finds unreadable descriptors. `opens`: the store can be opened and may have snapshots of those points. */
export async function descriptorFindings(
  workspace: Workspace,
  { opens, signal }: { opens: boolean } & StoppableCall,
): Promise<StoreFinding[]> {
  const all = readable(workspace);
  const damaged = all.flatMap((of) => of.points.list().damaged.map((point) => ({ of, point })));
  if (damaged.length === 0) return [];
  const taken = new Set<string | null>(
    all.flatMap(({ points }) => [
      ...points.list().points.map(({ descriptor }) => descriptor.save_point_id),
      ...points.unfinished().map(({ id }) => id),
    ]),
  );
  const remains = opens
    ? await pointRemains(await workspace.engine.store({ signal }), (id) => !taken.has(id), signal)
    : [];
  // The catalog knows the ids. Without it a single nameless point and a single unclaimed snapshot belong together.
  const nameless = damaged.filter(({ point }) => point.id === null);
  const unclaimed = remains.filter(({ id }) => !damaged.some(({ point }) => point.id === id));
  const only = nameless.length === 1 && unclaimed.length === 1 ? unclaimed[0] : undefined;
  return damaged.map(({ of, point }) => {
    const { id } = point;
    const left = id === null ? only : remains.find((each) => each.id === id);
    const finding = descriptorFinding(point);
    if (id === null) finding.detail = `save point number ${point.sequence}: ${finding.detail}`;
    if (left === undefined) return unreadable(workspace, finding);
    const mend = async (): Promise<void> => rebuildDescriptor(workspace, { of, point, left, signal });
    return unreadable(workspace, { ...finding, repair: LOST_WITH_IT, mend });
  });
}

async function rebuildDescriptor(
  workspace: Workspace,
  { of, point, left, signal }: { of: ReadablePoints; point: DamagedPoint; left: PointRemains } & StoppableCall,
): Promise<void> {
  const { engine } = workspace;
  const { manifest } = left;
  const asked = { id: left.id, content: left.content, stateDigest: null, metadataDigest: null };
  const request = { points: [asked], everything: false, signal };
  const { verdicts } = await verifyStore(workspace.found.control.root, request);
  const [verdict] = verdicts;
  const { stateDigest = null, metadataDigest = null } = verdict ?? {};
  if (verdict === undefined || stateDigest === null || metadataDigest === null) {
    throw new CairnError(
      "damaged",
      `cannot rebuild save point ${left.id}: its content, at ${printablePath(left.path)} in its snapshot, cannot be read`,
    );
  }
  const descriptor: Descriptor = {
    save_point_id: left.id as SavePointId,
    workspace_id: of.workspace.id,
    workspace_name: of.workspace.name,
    sequence: point.sequence,
    created_at: new Date(left.createdAt).toISOString(),
    message: "",
    tags: [],
    engine: engine.type,
    effective_engine: engine.type,
    degraded: [],
    parent_id: null,
    restored_from: null,
    cause: { kind: "doctor", reason: "the descriptor was damaged and has been written again from the snapshot" },
    content: left.content as unknown as Descriptor["content"],
    state_digest: Buffer.from(stateDigest).toString("hex"),
    metadata_digest: Buffer.from(metadataDigest).toString("hex"),
    complete: manifest.complete,
    entries: manifest.entries,
    bytes: verdict.bytes,
    bytes_stored: 0,
    unchanged: false,
    labels: manifest.labels,
    ...omittedOf(manifest.omitted),
    rules: await rebuiltRules(await engine.source(left.content), {
      crossMounts: manifest.mounts?.entered === true,
      signal,
    }),
    undo: false,
  };
  const bytes = encodeDescriptorFile(descriptor);
  const { root, descriptor: file } = of.points.pathsOf(point.sequence);
  of.points.rewriting([point.sequence], () => {
    // The damaged file is kept: people may read lost fields in it. Until the new file exists it also marks the point.
    if (fs.existsSync(file)) durableRename(file, path.join(root, "descriptor.damaged"));
    failpoint("doctor.descriptor-kept");
    durableWrite(file, bytes, { exclusive: true });
  });
  of.points.refresh();
}
