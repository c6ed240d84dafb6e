import { formatBytes, plural } from "../formats/sizes.ts";
import { freeSpace } from "../fs/linux/mounts.ts";
import { holdersOf } from "../workspace/open/holders.ts";
import { type HeadCall, lookBesideHead, recoverIfIdle } from "../workspace/save/look.ts";
import { requireFolder } from "../workspace/open/missing-folder.ts";
import { whyUnmounted } from "../workspace/place/mounted.ts";
import type { SavePointId } from "../ids.ts";
import { readBackupNotes } from "../workspace/place/backup-notes.ts";
import type { Point } from "../workspace/points/point-files.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import type {
  CallOptions,
  EngineReason,
  EngineType,
  Recovered,
  StatusOptions,
  StatusResult,
  StoreInfo,
} from "../contract/index.ts";
import { degradationOf } from "./public-point.ts";
import { missingPoints } from "../workspace/save/seal.ts";
import { incompleteOf } from "../workspace/points/left-out.ts";
import { workspaceRef } from "../workspace/place/find-workspace.ts";
import { allPoints } from "../workspace/points/points.ts";
import { shellQuote, displayPath } from "../fs/paths/safe-path.ts";
import { throwIfAborted } from "../errors.ts";
import type { ControlPaths } from "../workspace/place/control-layout.ts";

const SHOWN_IGNORED = 100;

/** Compares the folder with head, and reports on the workspace. */
export async function status(
  workspace: Workspace,
  options: StatusOptions & Pick<HeadCall, "unsealed">,
  engineReasons: readonly EngineReason[],
): Promise<StatusResult> {
  requireFolder(workspace);
  workspace.engine.prepare();
  await recoverIfIdle(workspace, options);
  const unmounted = whyUnmounted(workspace.found);
  if (unmounted !== null) options.onWarning?.(`${unmounted}: mount the disk before you save or restore`);
  const state = workspace.state();
  const head = workspace.byId(state.head);
  const latest = workspace.points.latest();
  const { ignored, changes, notKept } = await lookBesideHead(workspace, { ...options, head });
  const bytes = await workspace.engine.storeBytes();
  await warnOfDamage(workspace, options);
  const { totalBytes } = freeSpace(workspace.found.control.root);
  if (bytes > totalBytes / 2)
    options.onWarning?.(
      `the save points take ${formatBytes(bytes)}, more than half of the file system of ${workspace.found.control.root} (${formatBytes(totalBytes)}): \`cairn cleanup --keep-last 50 --keep-daily 30\` removes old ones`,
    );
  return {
    workspace: workspaceRef(workspace.found),
    clean: changes.added + changes.modified + changes.removed + notKept.count === 0,
    changes,
    not_kept: { count: notKept.count, paths: notKept.paths.map((path) => displayPath(path)) },
    head: state.head,
    head_incomplete: head === null ? null : incompleteOf(head),
    missing: missingPoints(workspace),
    latest: latest?.descriptor.save_point_id ?? null,
    detached: head !== null && latest !== null && head.descriptor.save_point_id !== latest.descriptor.save_point_id,
    engine: workspace.found.controlFile.engine as EngineType,
    engine_reasons: [...engineReasons],
    degraded: latest?.descriptor.degraded.map(degradationOf) ?? [],
    holders: options.holders === true ? holdersOf(workspace) : null,
    ignored: ignored.slice(0, SHOWN_IGNORED).map((path) => displayPath(Buffer.from(path, "latin1"))),
    store: { bytes, points: pointCount(workspace.found.control) },
    recovered: state.recovered as unknown as Recovered[],
    last_save_at: latest?.descriptor.created_at ?? null,
    watched: false,
    last_backup: lastBackup(workspace),
    last_proof_at: provenAt(latest),
  };
}

/** Newest points that a status checks for damage. */
const LOOKED_AT = 50;

/** Warns of damage that is known or visible without reading content. */
export async function warnOfDamage({ points, engine }: Workspace, { onWarning }: CallOptions): Promise<void> {
  const { points: read, damaged } = points.list({ limit: LOOKED_AT });
  const found = read.filter(({ verification }) => verification?.ok === false).length;
  const packs = await engine.unsoundPacks();
  const known = [
    ...(damaged.length === 0 ? [] : [`${plural(damaged.length, "save point")} cannot be read`]),
    ...(found === 0 ? [] : [`the last verification found damage in ${plural(found, "save point")}`]),
    ...(packs === 0 ? [] : [`${plural(packs, "pack")} of the store ${packs === 1 ? "is" : "are"} missing or damaged`]),
  ];
  if (known.length > 0)
    onWarning?.(
      `${known.join("; ")}: \`cairn verify --all\` names the files, \`cairn doctor --repair\` repairs what it can`,
    );
}

function lastBackup(workspace: Workspace): StatusResult["last_backup"] {
  const { found, points } = workspace;
  const [note] = readBackupNotes(found.paths);
  if (note === undefined) return null;
  const { at, save_point_id: id, snapshot_id: snapshot, location } = note;
  const sent = workspace.readable(id)?.sequence ?? points.ids().get(id as SavePointId) ?? 0;
  const since = points.saved().filter((sequence) => sequence > sent).length;
  return { at, save_point_id: id, snapshot_id: snapshot, location, saved_since: since };
}

/** Returns the time when a point was last verified as sound; null if never, or if damage was found. */
function provenAt(point: Point | null): string | null {
  const verification = point?.verification ?? null;
  return verification?.ok === true ? verification.at : null;
}

/** Returns the embedded repository's place and size, and the restic command that opens it. */
export async function store({ engine, found }: Workspace, options: CallOptions): Promise<StoreInfo> {
  throwIfAborted(options.signal);
  const { store: repository, storePassword: password } = found.control;
  const { repositoryId, bytes } = await engine.storeFacts();
  const words = ["restic", "-r", repository, "--password-file", password, "snapshots"];
  return {
    repository,
    password_file: password,
    repository_id: repositoryId,
    restic_command: words.map(shellQuote).join(" "),
    bytes,
    points: pointCount(found.control),
  };
}

/** Returns the number of points of all workspaces of a control directory, damaged ones included. Reads no descriptor. */
function pointCount(control: ControlPaths): number {
  return allPoints(control).reduce((sum, { points }) => sum + points.count(), 0);
}
