import fs from "node:fs";
import path from "node:path";
import type { StoreFinding } from "../store/store-care.ts";
import { CairnError, toCairnError, worded } from "../../errors.ts";
import { durableMkdir } from "../../fs/durable.ts";
import { listedNames, printablePath } from "../../fs/paths/safe-path.ts";
import { loadStatCache } from "../../archive/cache/stat-cache.ts";
import {
  deadWorkDirectories,
  placesOfUnfinished,
  removeDeadWorkDirectories,
  removeUnfinished,
  unfinishedIn,
} from "../../fs/work-directory.ts";
import { FOLDER_KINDS } from "../../repository/storage/storage.ts";
import { controlWarnings } from "../place/make-workspace.ts";
import { whyUnmounted } from "../place/mounted.ts";
import { isFolderThere, listLeases, listWorkspaces, recordFolder } from "../place/control-directory.ts";
import { originalsBeside } from "./originals.ts";
import { statCachePath, workspacePaths } from "../place/control-layout.ts";
import { isOtherFolder, workspaceAt } from "../place/find-workspace.ts";
import { waysBack } from "../open/missing-folder.ts";
import { listPartials, listRemovals } from "../place/partials.ts";
import {
  entryOf,
  finishRelease,
  leftReleases,
  lockRegistry,
  registerWorkspace,
  goneFolders,
} from "../place/registry.ts";
import { whyLeft } from "../points/held-trees.ts";
import { workspaceFindings } from "./doctor-points.ts";
import { isUnfreed } from "../keep/unfreed.ts";
import type { Workspace } from "../open/workspace.ts";

/**
 * Finds missing folders of a control directory, for example after a copy without empty folders. Other checks need these
 * folders; lost content is found later.
 */
export function* missingFolderFindings({ found: { control } }: Workspace): Iterable<StoreFinding> {
  const journals = listWorkspaces(control).flatMap(({ name, workspace }) =>
    workspace === null ? [] : [workspacePaths(control, name).journal],
  );
  // A store that is missing as a whole is another finding and is not made again.
  const store = fs.existsSync(control.store) ? FOLDER_KINDS.map((each) => path.join(control.store, each)) : [];
  for (const folder of [...journals, ...store]) {
    if (fs.lstatSync(folder, { throwIfNoEntry: false }) !== undefined) continue;
    const detail = `the folder ${folder} is missing`;
    yield {
      kind: "missing",
      severity: "damage",
      detail,
      repair: "the folder is made",
      mend: () => durableMkdir(folder),
    };
  }
}

/** Checks the control directory's place, modes and leftovers, and the workspace's folder and registration. */
export function* controlFindings(workspace: Workspace): Iterable<StoreFinding> {
  yield* placeFindings(workspace);
  yield* leftoverFindings(workspace);
  yield* unreadableFindings(workspace);
  yield* folderFindings(workspace);
  yield* registryFindings(workspace);
  const gone = goneFolders().filter((folder) => !folder.equals(workspace.found.folder));
  if (gone.length > 0) {
    const detail = `missing, but still registered: ${listedNames(gone.map(printablePath))}; \`cairn workspaces\` names the ways back`;
    yield { kind: "gone", severity: "info", detail };
  }
}

function* placeFindings({ found }: Workspace): Iterable<StoreFinding> {
  const { root } = found.control;
  for (const detail of controlWarnings(root, found.folder))
    yield { kind: "control-place", severity: "warning", detail };
  const why = whyNotWritable(root);
  if (why !== null) {
    const detail = `saves and restores in place fail: ${root} cannot be written (${why})`;
    yield { kind: "not-writable", severity: "warning", detail };
  }
  const mode = fs.statSync(root).mode & 0o777;
  if ((mode & 0o077) === 0) return;
  yield {
    kind: "permissions",
    severity: "warning",
    detail: `other users may read ${root} (mode ${mode.toString(8)})`,
    repair: "its mode becomes 700: only its owner may read it",
    mend: () => fs.chmodSync(root, 0o700),
  };
}

/** Tells why a control directory cannot be written now; null if it can. */
export function whyNotWritable(root: string): string | null {
  try {
    fs.accessSync(root, fs.constants.W_OK);
    return null;
  } catch (error) {
    return toCairnError(error).message;
  }
}

function* leftoverFindings({ found: { control, workspace, folder } }: Workspace): Iterable<StoreFinding> {
  const { temporary } = control;
  const dead = deadWorkDirectories(temporary);
  const places = placesOfUnfinished(folder.toString(), dead);
  const unfinished = places.flatMap(unfinishedIn);
  if (unfinished.length > 0)
    yield {
      kind: "leftovers",
      severity: "info",
      detail: `unfinished files of killed commands: ${listedNames(unfinished.map((each) => printablePath(each)))}`,
      repair: "they are removed",
      mend: () => {
        for (const place of places) removeUnfinished(place);
      },
    };
  if (dead.length > 0)
    yield {
      kind: "leftovers",
      severity: "info",
      detail: `${dead.length} unfinished ${dead.length === 1 ? "folder" : "folders"} of ended processes in ${temporary}`,
      repair: "they are removed",
      mend: () => {
        const stay = removeDeadWorkDirectories(temporary);
        const reasons = stay.map(({ directory, reason }) => whyLeft(directory, toCairnError(reason)));
        if (stay.length > 0) throw new CairnError("permission", reasons.join("; "));
      },
    };
  if (isUnfreed(control))
    yield {
      kind: "leftovers",
      severity: "info",
      detail: "content of removed points is still in the store; to free its space: cairn cleanup",
    };
  const statCache = statCachePath(control, workspace.id);
  if (fs.existsSync(statCache) && loadStatCache(statCache) === null)
    yield {
      kind: "cache",
      severity: "info",
      detail: "the stat cache of the folder cannot be read; without it the next save reads every file",
      repair: "it is removed and made again",
      mend: () => fs.rmSync(statCache, { force: true }),
    };
  // Leftovers of any folder of this user: no other command looks at these places.
  for (const note of leftReleases())
    yield {
      kind: "leftovers",
      severity: "warning",
      detail: `${note.place}: the points of ${printablePath(note.folder)}, whose deletion by \`cairn release\` was interrupted`,
      repair: "they are removed",
      mend: async () => {
        // Does not wait: a release holds the registry's lock and waits for the workspace's lock.
        using _registry = await lockRegistry({ purpose: "doctor", timeoutMs: 0 });
        finishRelease(note);
      },
    };
}

/** Finds views, unfinished folders and workspaces whose records cannot be read: nothing removes them. */
function* unreadableFindings({ found: { control } }: Workspace): Iterable<StoreFinding> {
  const problems = [...listPartials(control).problems, ...listRemovals(control).problems];
  try {
    listLeases(control);
  } catch (error) {
    problems.push(toCairnError(error));
  }
  for (const { message, hint } of problems) {
    const detail = hint === undefined ? message : `${message}; ${hint}`;
    yield { kind: "unreadable", severity: "warning", detail };
  }
  yield* workspaceFindings(control);
}

function* folderFindings(workspace: Workspace): Iterable<StoreFinding> {
  try {
    yield* findingsIn(workspace);
  } catch (error) {
    yield {
      kind: "folder",
      severity: "warning",
      detail: `the folder cannot be looked at: ${toCairnError(error).message}`,
    };
  }
}

function* findingsIn(workspace: Workspace): Iterable<StoreFinding> {
  const { found } = workspace;
  const shown = printablePath(found.folder);
  const unmounted = whyUnmounted(found);
  const back = isFolderThere(found.folder) ? null : worded(waysBack(found));
  if (back !== null) yield { kind: "folder", severity: "damage", detail: `the folder ${shown} is not there; ${back}` };
  else if (unmounted !== null) yield { kind: "folder", severity: "warning", detail: `${unmounted}: mount the disk` };
  else if (isOtherFolder(found))
    yield {
      kind: "folder",
      severity: "info",
      detail: `${shown} is not the folder that became the workspace (another inode); Cairn goes by the path, so it is still the same workspace`,
      repair: "the new folder is recorded as the workspace's",
      mend: () => recordFolder(found),
    };
  for (const place of originalsBeside(workspace)) {
    const detail = `${printablePath(place)} is the original of a converted folder, or a copy with files that were written during a conversion that was taken back: compare it with the folder, then remove it`;
    yield { kind: "original", severity: "info", detail };
  }
}

function* registryFindings({ found }: Workspace): Iterable<StoreFinding> {
  const { folder, control, controlFile, workspace } = found;
  const kind = "registry";
  const severity = "warning";
  const leadsElsewhere = `the registration of ${printablePath(folder)} does not name this control directory`;
  let problem = "the folder is not registered";
  try {
    const hit = workspaceAt(folder);
    if (hit?.control.root === control.root) return;
    // Another control directory has the folder now: a person must decide.
    if (hit !== null) return yield { kind, severity, detail: `${leadsElsewhere}: it names ${hit.control.root}` };
  } catch (error) {
    problem = toCairnError(error).message;
  }
  yield {
    kind,
    severity,
    detail: `${leadsElsewhere}: ${problem}`,
    repair: "the folder is registered again",
    mend: () => registerWorkspace(entryOf({ folder, control, controlFile, workspace })),
  };
}
