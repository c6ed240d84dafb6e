import fs from "node:fs";
import { basename, dirname } from "node:path";
import type { PointContent } from "../store/engine.ts";
import { advice, CairnError, option, throwIfAborted } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { printablePath, releaseLine, restoreLine } from "../../fs/paths/safe-path.ts";
import { type ControlId, newControlId, newSavePointId, newWorkspaceId, type WorkspaceId } from "../../ids.ts";
import { chooseControlDirectory, type ChosenControl, lockPlace, plainName } from "../place/make-workspace.ts";
import {
  createControlDirectory,
  type CreatedControl,
  createWorkspace,
  type FolderIdentity,
  identityOnceAt,
  isInMountOf,
  listWorkspaces,
  type PlacedWorkspace,
} from "../place/control-directory.ts";
import {
  checkWorkspaceName,
  type ControlPaths,
  MAIN_WORKSPACE,
  MOUNT_CONTROL,
  statCachePath,
  workspacePaths,
} from "../place/control-layout.ts";
import { atRealPath, type FoundWorkspace, realPathOf, workspaceAt } from "../place/find-workspace.ts";
import { checkLocation, type LocationOptions } from "../place/guards.ts";
import { takeBackFork } from "./recover-folders.ts";
import { causeOf, firstDescriptor, holdFirst, howItComes, inPlace, messageOf, putFirst } from "./first-point.ts";
import { separateGitState } from "./git-link.ts";
import { makeHoldable } from "../open/missing-folder.ts";
import { isMountRoot, NewFolder, requireFree } from "./new-folder.ts";
import { neverRead, type Point, rulesOf } from "../points/point-files.ts";
import { lockingOf, lockRegistry, registerWorkspace } from "../place/registry.ts";
import { recordPoint } from "../save/record-point.ts";
import { checkRoomFor, requireStillThere, writeWhole, type WrittenFolder } from "./write-point.ts";
import { Workspace, type WorkspaceCall, type WorkspaceParts } from "../open/workspace.ts";

export interface ForkInput extends WorkspaceCall {
  point: Point;
  /** an absent or empty folder */
  path: string;
  /** name of the new workspace; default: the folder's name, made unique */
  name?: string | undefined;
  allow?: LocationOptions["allow"];
  /** the engine and other parts of the new workspace */
  parts: WorkspaceParts;
  /** makes a control directory of its own; `populate` makes the store in it */
  standalone?: { populate: (staged: ControlPaths) => Promise<void> } | undefined;
}

export interface Forked {
  found: FoundWorkspace;
  point: Point;
  leftOut: WrittenFolder["leftOut"];
}

interface Making {
  partial: NewFolder;
  target: Buffer;
  identity: (inMount: boolean) => FolderIdentity;
  inode: string;
}

/**
 * Makes a new workspace in a folder of its own, equal to a point.
 * - Intent: the folder's temporary name is recorded. Stage: the tree is written there, the workspace is made with its
 * first point and registered. Commit: the folder gets its name. After a kill before that, the next command removes all.
 */
export async function forkWorkspace(workspace: Workspace, input: ForkInput): Promise<Forked> {
  const target = realPathOf(input.path);
  const { control } = workspace.found;
  requireFree(target);
  checkLocation(target, { allow: input.allow, control: control.root });
  refuseKept(target);
  if (input.name !== undefined) checkName(control, input.name);
  const { point } = input;
  const { isCopied, isRuleless } = await howItComes(workspace, point, { ...input, target });
  if (!point.sealed && !isCopied) throw neverRead(point);
  return workspace.engine.reading(async () => {
    requireStillThere(workspace, input.point);
    await checkRoomFor(workspace, input.point, { target, allow: input.allow });
    workspace.requireNotOthers();
    const partial = NewFolder.begin(control, "fork", target, { unrecorded: input.standalone !== undefined });
    try {
      if (!isCopied && !isMountRoot(target) && workspace.engine.holder?.atomic === true) {
        partial.letGo();
        fs.rmdirSync(partial.staging);
        await makeHoldable(workspace, partial.staging);
        partial.hold();
        failpoint("fork.subvolume-made");
      }
      const { leftOut } = await writeWhole(workspace, { ...input, partial, isRuleless });
      const [copy, from, to] = [partial.staging, workspace.root, target].map((path) => path.toString("utf8"));
      separateGitState(copy!, { from: from!, target: to! });
      failpoint("fork.git-separated");
      const making = { partial, target, ...placeOf(partial, target) };
      await (input.standalone === undefined
        ? addWorkspace(workspace, input, making)
        : addStandalone(workspace, input, making));
      failpoint("fork.workspace-made");
      throwIfAborted(input.signal);
      partial.commit();
      partial.end();
      return { ...inPlace(target), leftOut };
    } catch (error) {
      await takeBackFork(workspace, partial.record);
      partial.abandon(input.onWarning);
      throw error;
    }
  }, input);
}

/** Refuses a folder that is missing or empty, but still is a workspace with points. */
function refuseKept(target: Buffer): void {
  const kept = workspaceAt(target);
  if (kept === null) return;
  throw new CairnError(
    "already_exists",
    `${printablePath(target)} already is the workspace ${kept.workspace.name}, though its folder is empty or missing`,
    {
      hint: advice`restore it with: ${restoreLine(target)}; or forget it with: ${releaseLine(target)}`,
    },
  );
}

function checkName(control: ControlPaths, name: string): void {
  checkWorkspaceName(name);
  if (fs.existsSync(workspacePaths(control, name).root))
    throw new CairnError("already_exists", `there already is a workspace called ${JSON.stringify(name)}`, {
      hint: advice`choose another ${option("name")}`,
    });
}

/** Returns how the workspace's file identifies the folder, once it is in place. */
function placeOf(partial: NewFolder, target: Buffer): Pick<Making, "identity" | "inode"> {
  const facts = isMountRoot(target) ? target : partial.staging;
  const identity = (inMount: boolean): FolderIdentity => identityOnceAt(facts, target, inMount);
  return { identity, inode: fs.statSync(facts, { bigint: true }).ino.toString() };
}

function originOf(workspace: Workspace, point: Point): NonNullable<PlacedWorkspace["origin"]> {
  return { save_point_id: point.descriptor.save_point_id, workspace_id: workspace.found.workspace.id };
}

/** Adds a workspace to the same control directory; its first point has the same content. */
async function addWorkspace(workspace: Workspace, input: ForkInput, making: Making): Promise<void> {
  const { control } = workspace.found;
  const { partial, target, identity, inode } = making;
  const id = newWorkspaceId();
  const pointId = newSavePointId();
  partial.note({ workspace: { id, point: pointId, inode } });
  failpoint("fork.noted");
  const content = input.point.sealed
    ? await workspace.engine.share(input.point.descriptor.content as unknown as PointContent, {
        pointId,
        root: target,
        fork: { statCache: statCachePath(control, id), folder: partial.staging },
      })
    : null;
  failpoint("fork.content-shared");
  const { workspace: made, paths } = createWorkspace(control, {
    folder: target,
    name: input.name ?? plainName(basename(target.toString("utf8"))),
    exactName: input.name !== undefined,
    origin: originOf(workspace, input.point),
    id,
    identity: identity(isInMountOf(control, partial.staging)),
    ...(content === null
      ? {}
      : {
          fill: (staged, record) =>
            putFirst(staged, firstDescriptor(workspace, input.point, { pointId, content, record })),
        }),
  });
  failpoint("fork.workspace-named");
  if (content === null) await holdFirst(workspace, input, { folder: partial.staging, target, made, paths });
  registerWorkspace({
    folder: target,
    control: workspace.found.recordedControl ?? control.root,
    controlId: workspace.found.controlFile.id,
    workspaceId: id,
    workspaceName: made.name,
  });
}

/** Makes a control directory of its own and saves the folder into its store. */
async function addStandalone(workspace: Workspace, input: ForkInput, making: Making): Promise<void> {
  const { partial, target, inode } = making;
  const id = newControlId();
  const chosen = chooseControlDirectory(fs.existsSync(target) ? target : partial.staging, { id });
  const workspaceId = newWorkspaceId();
  partial.note({
    workspace: { id: workspaceId, point: input.point.descriptor.save_point_id, inode },
    control: { path: chosen.root, id },
  });
  failpoint("fork.noted");
  const { control: named, file } = await makeControl(workspace, input, { ...making, chosen, id, workspaceId });
  const control = atRealPath(named);
  failpoint("fork.control-made");
  const record = listWorkspaces(control)[0]!.workspace!;
  const found: FoundWorkspace = {
    folder: partial.staging,
    recordedFolder: target,
    control,
    controlFile: file,
    workspace: record,
    paths: workspacePaths(control, record.name),
  };
  await using own = new Workspace(found, input.parts);
  await saveFirst(own, workspace, input);
  registerWorkspace({ folder: target, control: named.root, controlId: id, workspaceId, workspaceName: record.name });
}

/** Takes the locks of makers of control directories: the next maker removes unfinished ones. */
async function makeControl(
  workspace: Workspace,
  input: ForkInput,
  making: Making & { chosen: ChosenControl; id: ControlId; workspaceId: WorkspaceId },
): Promise<CreatedControl> {
  const { chosen, id, workspaceId, target, identity } = making;
  const locking = lockingOf("fork", input);
  using _registry = await lockRegistry(locking);
  using _place = await lockPlace(chosen, locking);
  return await createControlDirectory(chosen.root, {
    id,
    name: plainName(basename(target.toString("utf8"))),
    engine: workspace.found.controlFile.engine,
    selfContained: false,
    populate: async (staged) => {
      await input.standalone!.populate(staged);
      createWorkspace(staged, {
        folder: target,
        name: input.name ?? MAIN_WORKSPACE,
        exactName: true,
        origin: originOf(workspace, input.point),
        id: workspaceId,
        identity: identity(basename(dirname(chosen.root)) === MOUNT_CONTROL),
      });
    },
  });
}

async function saveFirst(own: Workspace, workspace: Workspace, input: ForkInput): Promise<void> {
  using _lock = await own.lock("fork", input);
  const { signal, onProgress, onWarning } = input;
  await recordPoint(
    own,
    { message: messageOf(input.point), cause: causeOf(workspace, input.point), signal, onProgress, onWarning },
    { rules: rulesOf(input.point), undo: false },
  );
}
