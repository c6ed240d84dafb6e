import { basename, dirname, join } from "node:path/posix";
import { ScanMemory } from "../archive/scan/scan-memory.ts";
import { scan } from "../archive/scan/scan.ts";
import type { OpenRepository } from "../backup/open/open-repository.ts";
import { listBackups } from "../backup/open/snapshots.ts";
import { savedIn } from "../capture/vm/state.ts";
import type { ExportPointOptions } from "../contract/export-directory.ts";
import { advice, CairnError, call, toCairnError, word } from "../errors.ts";
import { hex } from "../formats/bytes.ts";
import { CONTENT, type Envelope, type EnvelopeFile } from "../formats/envelope/envelope.ts";
import type { JsonObject } from "../formats/fields.ts";
import { describedBy, roleOf, SIDECAR } from "../formats/machine/machine.ts";
import { NO_RULES } from "../fs/ignore.ts";
import { normalizeTyped } from "../fs/paths/safe-path.ts";
import { host } from "../keep/tasks.ts";
import { publicPoint } from "../look/public-point.ts";
import type { PlacedPoint } from "../look/sources/operands.ts";
import { restoreTo } from "../workspace/new-folder/restore-to.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { workspaceRef } from "../workspace/place/find-workspace.ts";
import { withSidecars } from "../workspace/restore/open-databases.ts";

/** A state that was written as the content of an export. */
export interface WrittenState {
  leftOut: readonly unknown[];
  /** Null if no digest is recorded for exactly these entries. */
  digest: string | null;
  message: string | null;
  /** The workspace that the state is of; for a backup of another folder the snapshot and the name of that folder. */
  origin: { id: string; name: string };
  config: JsonObject & { save_point_id: string };
}

/** Writes a point, or an entry of it, into a folder that does not exist. */
export async function writeState(
  workspace: Workspace,
  { id, path: typed }: PlacedPoint,
  to: string,
  options: ExportPointOptions,
): Promise<WrittenState> {
  const point = workspace.resolveOwn(id);
  const { leftOut } = await writeEntry(typed, async (folder, name) => {
    const paths = withSidecars([], point.descriptor, name === null ? null : [normalizeTyped(typed)]);
    return restoreTo(workspace, { ...options, point, to, below: normalizeTyped(folder), paths });
  });
  const { save_point_id, payload_root_hash: digest, created_at, message, tags, cause } = publicPoint(point);
  const config = { save_point_id, created_at, tags, cause, ...partOf(typed) };
  return { leftOut, digest: typed === "" ? digest : null, message, origin: originIn(workspace), config };
}

/** Writes a snapshot, or one entry of it. Throws `unsupported` if no save point was backed up as this snapshot. */
export async function writeSnapshot(
  access: OpenRepository,
  { snapshot, path }: { snapshot: string; path: string },
  to: string,
  { workspace, options: { signal, onProgress, onWarning } }: { workspace: Workspace; options: ExportPointOptions },
): Promise<WrittenState> {
  const { restoreBackup } = await import("../backup/restore/restore.ts");
  const latestOf = { paths: [workspaceRef(workspace.found).path] };
  const restored = await writeEntry(path, async (folder, name) => {
    const chosen = { ...(folder === "" ? {} : { subfolder: folder }), ...(name === null ? {} : { paths: [name] }) };
    return restoreBackup(access, { snapshot, to }, { latestOf, signal, onProgress, onWarning, ...chosen });
  });
  const { snapshot_id, save_point_id, created_at, left_out: leftOut, proof, repository_id } = restored;
  if (save_point_id === null)
    throw new CairnError(
      "unsupported",
      `snapshot ${snapshot_id.slice(0, 8)} was not made from a save point, so no envelope can name one`,
      {
        hint: advice`${call("backup restore SNAPSHOT --to DIR", "restore", word("snapshot"), word("to"))} writes it as a folder`,
      },
    );
  const { snapshots } = await listBackups(access, { snapshots: [snapshot_id], signal });
  const { hostname, paths, tags } = snapshots[0]!;
  const isOwn = hostname === host() && paths.includes(latestOf.paths[0]!);
  const origin = isOwn ? originIn(workspace) : { id: snapshot_id, name: basename(paths[0] ?? "") || hostname };
  const cause = { kind: "backup", snapshot_id, repository_id, hostname, paths };
  const config = { save_point_id, created_at, tags, cause, ...partOf(path) };
  return { leftOut, digest: proof?.state_digest ?? null, message: null, origin, config };
}

function originIn({ found }: Workspace): WrittenState["origin"] {
  const { id, name } = found.workspace;
  return { id, name };
}

/** Writes the entries of a folder at `path`, or another entry there alone, by the folder above it and the entry's name. */
async function writeEntry<T>(path: string, write: (folder: string, name: string | null) => Promise<T>): Promise<T> {
  return write(path, null).catch(async (error: unknown) => {
    // No folder is at the path.
    if (path === "" || toCairnError(error).code !== "conflict") throw error;
    const above = dirname(path);
    return write(above === "." ? "" : above, basename(path));
  });
}

function partOf(path: string): JsonObject {
  return path === "" ? {} : { path };
}

/** Returns the state digest of a folder that was written, as a save of its copy will compute it. */
export async function digestOf(workspace: Workspace, folder: string, { signal }: ExportPointOptions): Promise<string> {
  await using memory = new ScanMemory();
  const { repository } = await workspace.engine.store();
  const request = { root: Buffer.from(folder), rules: NO_RULES, skip: [] };
  const found = await scan({ request, cache: null, memory, chunkerPolynomial: repository.chunkerPolynomial, signal });
  return hex(found.state);
}

/** Returns the envelope of a state that was written into the folder `written`. A machine's state has the machine's record. */
export function envelopeOf(
  written: string,
  {
    state: { message, origin, config },
    digest,
    content: { entries, files },
  }: { state: WrittenState; digest: string; content: Pick<Envelope, "entries" | "files"> },
): Envelope {
  const machine = savedIn(join(written, SIDECAR));
  const about = machine === null ? origin : describedBy(machine);
  const withRole = (file: EnvelopeFile): EnvelopeFile => ({
    ...file,
    role: roleOf(file.name.slice(CONTENT.length + 1)),
  });
  return {
    kind: machine === null ? "workspace" : "vm",
    config: { ...about, description: message ?? machine?.description ?? "", ...config },
    stateDigest: digest,
    entries,
    files: machine === null ? files : files.map(withRole),
  };
}
