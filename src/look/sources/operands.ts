import { existsSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, resolve } from "node:path";
import type { Session } from "../../backup/open/session.ts";
import type { OpenRepository } from "../../backup/open/open-repository.ts";
import type { LookOptions } from "../../contract/looking.ts";
import type { PathInput } from "../../contract/words.ts";
import { isLocation, NOW, type Operand, readOperand } from "../../contract/operand.ts";
import { advice, CairnError, call, line, toCairnError, word } from "../../errors.ts";
import { displayPath, isAtOrBelow, joinRaw, normalizeTyped, rawBytes, shellPath } from "../../fs/paths/safe-path.ts";
import { listWorkspaces } from "../../workspace/place/control-directory.ts";
import { isUnknownHere, ownPointsOnly, pointElsewhere } from "../../workspace/open/siblings.ts";
import { Workspace, type WorkspaceCall } from "../../workspace/open/workspace.ts";
import { findWorkspace, type FoundWorkspace, realPathOf, workspaceRef } from "../../workspace/place/find-workspace.ts";
import type { Point } from "../../workspace/points/point-files.ts";
import { type SealProblem, withSealed } from "../../workspace/save/seal.ts";
import { lookAtWorkspace } from "../../workspace/save/look.ts";
import { below, NOTHING, type Source } from "./source.ts";
import { namesInFolder, pointSource, scannedSource } from "./workspace-source.ts";

/** Runs `work` with the repository that a call gives, else with the one kept for the workspace. */
export type WithBackups = <T>(
  workspace: Workspace,
  options: LookOptions,
  work: (access: OpenRepository) => Promise<T>,
) => Promise<T>;

/** A workspace, and its backups. */
export interface Looking {
  readonly workspace: Workspace;
  readonly backups: WithBackups;
}

/** The meaning of an operand here. `path`: raw, below the root of the state; of a backup as it was typed. */
export type Meant = { readonly path: Uint8Array } & (
  | { readonly kind: "now" }
  | { readonly kind: "folder"; readonly found: FoundWorkspace }
  | { readonly kind: "point"; readonly point: Point }
  | { readonly kind: "backup"; readonly snapshot: string }
);

/** The present folder of a workspace, or a part of it. */
export function now(path: Uint8Array = NOTHING): Meant {
  return { kind: "now", path };
}

/**
 * Finds out which state an operand means. Throws `usage` for an operand that means nothing, `permission` for another
 * folder or a backup if the caller may see only the workspace's own points, and the errors of `Workspace.resolve`.
 */
export function meantBy(workspace: Workspace, text: string): Meant {
  let unknown: CairnError | null = null;
  for (const operand of readOperand(text)) {
    try {
      const found = meantIf(workspace, operand);
      if (found !== null) return found;
    } catch (error) {
      if (!isUnknownHere(error)) throw error;
      unknown ??= toCairnError(error);
    }
  }
  if (isLocation(text))
    throw new CairnError("usage", `${text} is the location of a repository, and no operand contains a location`, {
      hint: advice`name a snapshot: backup:latest. It is looked up in the repository that is kept for the folder: ${line("backup use -r REPOSITORY", "setBackupRepository", { repository: word("repository") })}`,
    });
  throw unknown ?? new CairnError("not_found", `there is no folder ${text}`);
}

function meantIf(workspace: Workspace, operand: Operand): Meant | null {
  if (operand.kind === "point")
    return { kind: "point", point: workspace.resolve(operand.point), path: normalizeTyped(operand.path) };
  if (operand.kind === "folder" && operand.folder === NOW) return now();
  requireOwner();
  if (operand.kind === "backup") return { kind: "backup", snapshot: operand.snapshot, path: rawBytes(operand.path) };
  return folderMeant(workspace, operand.folder);
}

/** Returns the point and the path that an operand means. Throws `usage` for another state, and the errors of `meantBy`. */
export function pointMeant(workspace: Workspace, text: string): Extract<Meant, { kind: "point" }> {
  const meant = meantBy(workspace, text);
  if (meant.kind === "point") return meant;
  if (meant.kind === "backup")
    throw new CairnError("usage", `${text} is a backup, and a save point is needed`, {
      hint: advice`restore it into a folder: ${call("backup restore SNAPSHOT --to DIR", "restore", word("snapshot"), word("to"))}`,
    });
  const root = meant.kind === "now" ? [] : [displayPath(meant.found.folder).path];
  const path = meant.path.length === 0 ? [] : [displayPath(meant.path).path];
  throw new CairnError("usage", `${text} is a folder, and a save point is needed`, {
    hint: `name a save point of it, for example ${shellPath([...root, "latest", ...path].join(":"))}`,
  });
}

/** A point that an operand means, by its name in its workspace. `path`: as typed, below the root; empty for the whole. */
export interface PlacedPoint {
  readonly found: FoundWorkspace;
  readonly id: string;
  readonly path: string;
}

/** Runs `work` in the workspace of a point. Points of another workspace are sealed first; `problems` lists the points that could not be sealed. */
export async function inItsWorkspace<T>(
  workspace: Workspace,
  { found }: PlacedPoint,
  options: WorkspaceCall,
  work: (owner: Workspace, problems?: readonly SealProblem[]) => Promise<T>,
): Promise<T> {
  if (found === workspace.found) return work(workspace);
  await using other = new Workspace(found, workspace.parts, workspace.removals);
  return await withSealed(other, options, async (problems) => work(other, problems));
}

/** Returns the point that an operand means. Throws `usage` for another state, and the errors of `meantBy`. */
export function placedPoint(workspace: Workspace, target: string): PlacedPoint {
  for (const operand of readOperand(target)) {
    if (operand.kind !== "point") continue;
    const found = placeOf(workspace, operand.point);
    if (found !== null) return { ...found, path: operand.path };
  }
  // Throws, because no workspace has the point.
  return { found: workspace.found, id: pointMeant(workspace, target).point.descriptor.save_point_id, path: "" };
}

function placeOf(workspace: Workspace, target: string): { found: FoundWorkspace; id: string } | null {
  try {
    workspace.resolveOwn(target);
  } catch (error) {
    if (isUnknownHere(error)) return pointElsewhere(workspace.found, target);
    if (toCairnError(error).code !== "damaged") throw error;
  }
  return { found: workspace.found, id: target };
}

/** Throws `permission` if the caller may see only the workspace's own points. */
export function requireOwner(): void {
  if (ownPointsOnly.getStore() === true)
    throw new CairnError("permission", "only the owner of the folder may look at backups and other folders");
}

/** Null if there is no such folder. */
function folderMeant(workspace: Workspace, folder: string): Meant | null {
  if (ownPointsOnly.getStore() !== undefined && !isAbsolute(folder))
    throw new CairnError("usage", `${folder} is a relative path, and the daemon has another current folder`, {
      hint: "give the folder's absolute path",
    });
  const absolute = resolve(folder.replace(/^~(?=\/|$)/, homedir()));
  if (!existsSync(absolute) || !statSync(absolute).isDirectory()) return null;
  const real = realPathOf(absolute);
  const pathBelow = (root: Buffer): Uint8Array => real.subarray(root.length === 1 ? 1 : root.length + 1);
  if (isAtOrBelow(real, workspace.root)) return now(pathBelow(workspace.root));
  const found = findWorkspace(real);
  if (found !== null) return { kind: "folder", found, path: pathBelow(found.folder) };
  throw new CairnError("not_a_workspace", `neither ${absolute} nor a folder above it is a workspace`, {
    hint: advice`make it one: ${line(`init ${absolute}`, "init", absolute)}`,
  });
}

/** Returns the operands that name two states for good. `b` null: the folder now, or the folder there that `a` names. */
export async function namesOf(
  hand: Looking,
  [a, b]: readonly [string, string | null],
  options: LookOptions,
): Promise<{ from: string; to: string | null }> {
  const from = meantBy(hand.workspace, a);
  const to = b === null ? now(from.path) : meantBy(hand.workspace, b);
  return { from: (await nameOf(hand, from, options)) ?? NOW, to: await nameOf(hand, to, options) };
}

/** Returns the operand that names a state for good; null for the workspace's folder now. Looks a snapshot up. */
async function nameOf(hand: Looking, meant: Meant, options: LookOptions): Promise<string | null> {
  if (meant.kind === "backup") return withSources(hand, [meant], options, async ([opened]) => opened!.name);
  if (meant.kind === "point") return named(meant.point.descriptor.save_point_id, meant.path);
  if (meant.kind === "now" && meant.path.length === 0) return null;
  const root = meant.kind === "now" ? hand.workspace.root : meant.found.folder;
  return displayPath(meant.path.length === 0 ? root : joinRaw(root, meant.path)).path;
}

/** Scans the folder of a workspace. Its files are read from the folder. */
export async function folderSource(workspace: Workspace, options: WorkspaceCall): Promise<Source> {
  const { scan } = await lookAtWorkspace(workspace, options, workspace.byId(workspace.state().head));
  return scannedSource(workspace, scan);
}

/** An open source, and the operand that names it for good: a snapshot and a point by their whole ids. */
export interface Opened {
  source: Source;
  name: string;
  /** The folder, if the source is one. */
  folder: Buffer | null;
  /** Returns the raw path below the source's root for a typed one, which may be whole in a backup. Throws `usage`. */
  pathOf: (typed: PathInput) => Uint8Array;
}

/** Opens the states that operands mean for as long as `work` runs. Points must be sealed. */
export async function withSources<T>(
  hand: Looking,
  operands: readonly Meant[],
  options: LookOptions,
  work: (opened: readonly Opened[]) => Promise<T>,
): Promise<T> {
  const { workspace, backups } = hand;
  const open = async (session: Session | null): Promise<T> => {
    await using stack = new AsyncDisposableStack();
    const opened: Opened[] = [];
    for (const each of operands) opened.push(await openOne(workspace, each, { session, stack, options }));
    return await work(opened);
  };
  if (!operands.some(({ kind }) => kind === "backup")) return open(null);
  warnOfNamesake(workspace, options);
  const { reading } = await import("../../backup/open/session.ts");
  const { warnOfUnreadable } = await import("../../backup/open/snapshots.ts");
  return backups(workspace, options, async (access) =>
    reading(access, options, async (session) => {
      warnOfUnreadable(access, session.damaged, options);
      return open(session);
    }),
  );
}

/** Warns if another workspace is called `backup`: an operand cannot name its points by that name. */
function warnOfNamesake({ found }: Workspace, { onWarning }: LookOptions): void {
  const all = listWorkspaces(found.control).flatMap(({ workspace }) => workspace ?? []);
  const namesake = all.find(({ name }) => name === "backup");
  if (namesake !== undefined)
    onWarning?.(
      `backup:SNAPSHOT means a backup of this folder; the points of the workspace "backup" are named by its folder: ${shellPath(`${namesake.path}:latest`)}`,
    );
}

async function openOne(
  workspace: Workspace,
  meant: Meant,
  { session, stack, options }: { session: Session | null; stack: AsyncDisposableStack; options: LookOptions },
): Promise<Opened> {
  const { path } = meant;
  if (meant.kind === "backup") {
    const { path: folder } = workspaceRef(workspace.found);
    const { pathBelow } = await import("../../backup/open/paths.ts");
    const { chosenSnapshot } = await import("../../backup/open/snapshots.ts");
    const { folderIn, isOfFolder, likeFolder, snapshotSource } = await import("./snapshot-source.ts");
    const listed = chosenSnapshot(session!, meant.snapshot, {
      latestOf: { paths: [folder] },
      onWarning: options.onWarning,
    });
    const whole = await snapshotSource(session!, listed);
    const saved = isOfFolder(whole) ? whole : await likeFolder(whole, await namesInFolder(workspace));
    const source = await folderIn(saved, path);
    const name = named(`backup:${listed.id}`, source.saved.part?.path ?? NOTHING);
    const pathOf = (typed: PathInput): Uint8Array => pathBelow(source.saved, listed.snapshot.paths, typed);
    return { source, name, folder: null, pathOf };
  }
  if (meant.kind === "point") {
    const name = named(meant.point.descriptor.save_point_id, path);
    const source = below(await pointSource(workspace, meant.point), path, name);
    return { source, name, folder: null, pathOf: normalizeTyped };
  }
  const of =
    meant.kind === "now" ? workspace : stack.use(new Workspace(meant.found, workspace.parts, workspace.removals));
  const folder = path.length === 0 ? of.root : joinRaw(of.root, path);
  const name = meant.kind === "now" && path.length === 0 ? NOW : displayPath(folder).path;
  return { source: below(await folderSource(of, options), path, name), name, folder, pathOf: normalizeTyped };
}

function named(state: string, path: Uint8Array): string {
  return path.length === 0 ? state : `${state}:${displayPath(path).path}`;
}
