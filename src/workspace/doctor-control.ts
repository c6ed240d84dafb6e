import fs from "node:fs";
import path from "node:path";
import type { StoreFinding as Checkup } from "../engines/store-care.ts";
import { CairnError, toCairnError } from "../errors.ts";
import { durableMkdir } from "../fs/durable.ts";
import { breakLock, lockHolder } from "../fs/lock.ts";
import { describeOwner, livenessOf } from "../fs/lock-owner.ts";
import { filesystemKind } from "../fs/mounts.ts";
import { printablePath } from "../fs/safe-path.ts";
import { loadStatCache } from "../fs/stat-cache.ts";
import { FOLDER_KINDS } from "../repository/storage/storage.ts";
import { deadWorkDirectories, removeDeadWorkDirectories } from "../fs/work-directory.ts";
import { listWorkspaces } from "./control-directory.ts";
import { statCachePath, workspacePaths } from "./control-layout.ts";
import { controlWarnings } from "./control-place.ts";
import { workspaceAt } from "./find-workspace.ts";
import { keptOriginal } from "./kept-original.ts";
import { listLeases } from "./leases.ts";
import { isFolderThere, waysBack } from "./missing-folder.ts";
import { listPartials } from "./partial-folder.ts";
import { isOtherFolder, recordFolder } from "./recorded-folder.ts";
import { finishRelease, leftReleases, lockRegistry, registerWorkspace } from "./registry.ts";
import { whyLeft } from "./removals.ts";
import { isUnfreed } from "./unfreed.ts";
import type { Workspace } from "./workspace.ts";

/** Who holds the workspace's lock, where that cannot be judged; with `breakLocks` it is taken away. */
export function lockFindings(workspace: Workspace, breakLocks: boolean): Checkup[] {
  const { lock } = workspace.found.paths;
  const holder = lockHolder(lock);
  if (holder === null) return [];
  const { place } = filesystemKind(workspace.found.control.root);
  if (livenessOf(holder, place === "local" || place === "memory") !== "unknown") return [];
  const detail = `the workspace is locked by ${describeOwner(holder)}, of which nothing can be known from here`;
  if (!breakLocks)
    return [
      {
        kind: "lock",
        severity: "warning",
        detail: `${detail}; once it is known to be dead: doctor --repair --break-locks`,
      },
    ];
  return [
    { kind: "lock", severity: "warning", detail, repair: "the lock is taken away", mend: async () => breakLock(lock) },
  ];
}

/**
 * Folders that are made with a control directory and are not there, as after a copy that left out empty ones. Without them
 * nothing else can be looked at; what was in them is found missing afterwards.
 */
export function missingFolderFindings({ found: { control } }: Workspace): Checkup[] {
  const journals = listWorkspaces(control).flatMap(({ name, workspace }) =>
    workspace === null ? [] : [workspacePaths(control, name).journal],
  );
  // A store that is missing as a whole is another finding, and nothing to be made anew.
  const store = fs.existsSync(control.store) ? FOLDER_KINDS.map((each) => path.join(control.store, each)) : [];
  return [...journals, ...store].flatMap((folder): Checkup[] => {
    if (fs.lstatSync(folder, { throwIfNoEntry: false }) !== undefined) return [];
    const mend = async (): Promise<void> => void durableMkdir(folder);
    return [
      { kind: "missing", severity: "damage", detail: `the folder ${folder} is not there`, repair: "it is made", mend },
    ];
  });
}

/** The control directory's place and modes, what was left in it, the workspace's folder and how it is found. */
export function controlFindings(workspace: Workspace): Checkup[] {
  return [
    ...placeFindings(workspace),
    ...leftoverFindings(workspace),
    ...releaseFindings(),
    ...unreadableFindings(workspace),
    ...workspaceFindings(workspace),
    ...folderFindings(workspace),
    ...originalFindings(workspace),
    ...registryFindings(workspace),
  ];
}

function placeFindings({ found }: Workspace): Checkup[] {
  const { root } = found.control;
  const findings: Checkup[] = controlWarnings(root).map((detail) => ({
    kind: "control-place",
    severity: "warning",
    detail,
  }));
  const why = whyNotWritable(root);
  if (why !== null)
    findings.push({
      kind: "control-place",
      severity: "warning",
      detail: `nothing can be saved, nor restored in place: ${root} cannot be written (${why})`,
    });
  const mode = fs.statSync(root).mode & 0o777;
  if ((mode & 0o077) !== 0) {
    findings.push({
      kind: "permissions",
      severity: "warning",
      detail: `others may look into ${root} (mode ${mode.toString(8)})`,
      repair: "only its owner may from then on",
      mend: async () => fs.chmodSync(root, 0o700),
    });
  }
  return findings;
}

/** Why nothing can be written into a control directory now; null where it can. */
export function whyNotWritable(root: string): string | null {
  try {
    fs.accessSync(root, fs.constants.W_OK);
    return null;
  } catch (error) {
    return toCairnError(error).message;
  }
}

function leftoverFindings({ found }: Workspace): Checkup[] {
  const { temporary } = found.control;
  const findings: Checkup[] = [];
  const dead = deadWorkDirectories(temporary);
  if (dead.length > 0) {
    findings.push({
      kind: "leftovers",
      severity: "info",
      detail: `${dead.length} unfinished ${dead.length === 1 ? "folder" : "folders"} of processes that are gone in ${temporary}`,
      repair: "they are removed",
      mend: async () => {
        const stay = removeDeadWorkDirectories(temporary);
        if (stay.length === 0) return;
        const reasons = stay.map(({ directory, reason }) => whyLeft(directory, toCairnError(reason)));
        throw new CairnError("permission", reasons.join("; "));
      },
    });
  }
  if (isUnfreed(found.control)) {
    findings.push({
      kind: "leftovers",
      severity: "info",
      detail: "content of points that were removed is still in the store; what takes it out: cairn cleanup",
    });
  }
  const statCache = statCachePath(found.control, found.workspace.id);
  if (fs.existsSync(statCache) && loadStatCache(statCache) === null) {
    findings.push({
      kind: "cache",
      severity: "info",
      detail: "the cache of the folder's entries cannot be used; the next save reads everything",
      repair: "it is removed and made again",
      mend: async () => fs.rmSync(statCache, { force: true }),
    });
  }
  return findings;
}

/** Of any folder of this user: what was to be deleted lies where no other command may ever look. */
function releaseFindings(): Checkup[] {
  return leftReleases().map((note) => ({
    kind: "leftovers",
    severity: "warning",
    detail: `${note.place}: the points of ${printablePath(note.folder)}, whose deletion by \`cairn release\` was interrupted`,
    repair: "they are removed",
    mend: async () => {
      // Not waited for: who releases holds it, and waits for the workspace's.
      using _registry = await lockRegistry({ purpose: "doctor", timeoutMs: 0 });
      finishRelease(note);
    },
  }));
}

/** Views and unfinished folders of which nobody knows what they are about: nothing removes them. */
function unreadableFindings({ found: { control } }: Workspace): Checkup[] {
  const { problems } = listPartials(control);
  try {
    listLeases(control);
  } catch (error) {
    problems.push(toCairnError(error));
  }
  return problems.map(({ message, hint }) => ({
    kind: "unreadable",
    severity: "warning",
    detail: hint === undefined ? message : `${message}; ${hint}`,
  }));
}

function workspaceFindings({ found }: Workspace): Checkup[] {
  return listWorkspaces(found.control).flatMap(({ name, problem }): Checkup[] => {
    if (problem === undefined) return [];
    return [
      { kind: "workspace", severity: "damage", detail: `the workspace ${name} cannot be opened: ${problem.message}` },
    ];
  });
}

function folderFindings({ found }: Workspace): Checkup[] {
  const shown = printablePath(found.folder);
  if (!isFolderThere(found.folder)) {
    return [{ kind: "folder", severity: "damage", detail: `the folder ${shown} is not there; ${waysBack(found)}` }];
  }
  if (!isOtherFolder(found)) return [];
  return [
    {
      kind: "folder",
      severity: "info",
      detail: `${shown} is another folder than the one that was adopted; the path decides, so it is kept as the same workspace`,
      repair: "it is recorded as the one",
      mend: async () => recordFolder(found),
    },
  ];
}

/** What a conversion left for the next save to remove, or for somebody to look at. */
function originalFindings({ found }: Workspace): Checkup[] {
  try {
    const original = keptOriginal(found);
    if (original === null) return [];
    const detail = `the folder as it was before its conversion lies in ${printablePath(original.place)}; a save removes it when nobody wrote into it since`;
    return [{ kind: "original", severity: "info", detail }];
  } catch (error) {
    return [{ kind: "original", severity: "warning", detail: toCairnError(error).message }];
  }
}

function registryFindings({ found }: Workspace): Checkup[] {
  let problem: string;
  try {
    const hit = workspaceAt(found.folder);
    if (hit !== null && hit.control.root === found.control.root) return [];
    problem = hit === null ? "it is in no registry" : `it is registered for ${hit.control.root}`;
    // Somebody else's now: to be settled by hand.
    if (hit !== null)
      return [
        {
          kind: "registry",
          severity: "warning",
          detail: `the folder ${printablePath(found.folder)} does not lead here: ${problem}`,
        },
      ];
  } catch (error) {
    problem = toCairnError(error).message;
  }
  return [
    {
      kind: "registry",
      severity: "warning",
      detail: `the folder ${printablePath(found.folder)} does not lead here: ${problem}`,
      repair: "it is registered again",
      mend: async () =>
        registerWorkspace({
          folder: found.folder,
          control: found.control.root,
          controlId: found.controlFile.id,
          workspaceId: found.workspace.id,
          workspaceName: found.workspace.name,
        }),
    },
  ];
}
