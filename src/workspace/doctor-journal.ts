import fs from "node:fs";
import path from "node:path";
import { STAGING_NAME } from "../engines/scan/task.ts";
import type { StoreFinding as Checkup } from "../engines/store-care.ts";
import { type CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { rawPath } from "../formats/record.ts";
import { durableMkdir, durableWrite } from "../fs/durable.ts";
import { mountsInside } from "../fs/mounts.ts";
import { namesIn } from "../fs/names-in.ts";
import { joinRaw, printablePath } from "../fs/safe-path.ts";
import { listWorkspaces } from "./control-directory.ts";
import { newKeptPlace, workspacePaths } from "./control-layout.ts";
import { type Journal, JOURNALS } from "./journals.ts";
import { apartOf, RESTORE_STEPS, RestoreJournal } from "./restore-journal.ts";
import { stagedIn } from "./stranded-staging.ts";
import type { Workspace } from "./workspace.ts";

/** A journal that cannot be read. */
interface DamagedJournal extends Journal {
  problem: CairnError;
}

/**
 * Journals that cannot be read, so that no command can finish what they say, and what earlier ones left.
 *
 * Mending one takes it out of the way and deletes nothing: the staging folder goes aside with what was staged in it
 * and displaced into it, then the journal ●, then its other file. Killed before the commit the journal is still found
 * damaged, and the next repair goes on; killed after it, what is left of it says nothing any more.
 */
export function journalFindings(workspace: Workspace): Checkup[] {
  return [...damagedJournals(workspace).map((journal) => finding(workspace, journal)), ...keptFindings(workspace)];
}

function damagedJournals(workspace: Workspace): DamagedJournal[] {
  const { journal } = workspace.found.paths;
  return JOURNALS.flatMap((each) => {
    try {
      each.read(journal);
      return [];
    } catch (error) {
      return [{ ...each, problem: toCairnError(error) }];
    }
  });
}

function finding(workspace: Workspace, damaged: DamagedJournal): Checkup {
  const { problem, operation } = damaged;
  const place = newKeptPlace(workspace.found.control, operation);
  // Written by a newer version: that one can finish it.
  if (problem.code === "newer_version") return { kind: "journal", severity: "damage", detail: problem.message };
  const left = {
    restore: () => `the folder may be part as it was and part as wanted; ${undoOf(workspace)}`,
    cleanup: () => "some of its points may be gone, those that are listed are whole",
    seal: () => "its point is read again by the next seal",
    conversion: () =>
      "the folder is whole; its copy, or what it was before, lies beside it and stays (.cairn-original-…)",
  }[operation]();
  return {
    kind: "journal",
    severity: "damage",
    detail: `a ${operation} was interrupted and cannot be finished: ${problem.message}; ${left}`,
    repair: `the journal and what had been staged or displaced are kept in ${place}; the folder stays as it is`,
    mend: async () => setAside(workspace, damaged, place),
  };
}

/** How to get at what was there before the restore. */
function undoOf(workspace: Workspace): string {
  const undo = workspace.points.list().points.find(({ descriptor }) => descriptor.undo);
  return undo === undefined
    ? "the point that was made before it is not there any more"
    : `what was there before is the save point ${undo.descriptor.save_point_id.slice(0, 8)}`;
}

async function setAside(workspace: Workspace, { files, operation }: DamagedJournal, place: string): Promise<void> {
  const { journal } = workspace.found.paths;
  durableMkdir(place);
  if (operation === "restore") {
    for (const staging of stagingOf(workspace)) moveStaging(staging, place);
    writeNames(journal, place);
  }
  failpoint("doctor.staging-kept");
  for (const name of files) {
    const file = path.join(journal, name);
    if (fs.lstatSync(file, { throwIfNoEntry: false }) === undefined) continue;
    fs.renameSync(file, path.join(place, name));
    failpoint("doctor.journal-kept");
  }
}

/** Staging folders of this workspace's restores: of those that lie there, what no other workspace's journal names. */
function stagingOf(workspace: Workspace): string[] {
  const { control, paths } = workspace.found;
  const there = [control.temporary, workspace.root.toString("utf8"), ...placesOf(workspace)].flatMap((directory) =>
    namesIn(directory)
      .filter((name) => STAGING_NAME.test(name))
      .map((name) => path.join(directory, name)),
  );
  // Read after: a restore names its staging directory before it makes it, so what came before this is named by now.
  const others = listWorkspaces(control)
    .map(({ name }) => workspacePaths(control, name).journal)
    .filter((journal) => journal !== paths.journal)
    .map(journalText)
    .join("\n");
  return there.filter((staging) => !others.includes(path.basename(staging)));
}

/** Directories inside the folder that the restore stages in too, where its intent still says which. */
function placesOf({ found, root }: Workspace): string[] {
  try {
    const intent = new RestoreJournal(found.paths.journal).intent();
    return apartOf(intent).map((place) =>
      path.join(root.toString("utf8"), Buffer.from(rawPath(place)).toString("utf8")),
    );
  } catch {
    return [];
  }
}

function journalText(journal: string): string {
  return namesIn(journal)
    .map((name) => {
      const file = path.join(journal, name);
      try {
        return fs.lstatSync(file).isSymbolicLink() ? fs.readlinkSync(file) : fs.readFileSync(file, "utf8");
      } catch {
        // Gone meanwhile: its restore has ended.
        return "";
      }
    })
    .join("\n");
}

/** On another file system, or where a mount is in the way, it stays where it is; no save and no clean-up touches it there. */
function moveStaging(staging: string, place: string): void {
  try {
    fs.renameSync(staging, path.join(place, path.basename(staging).slice(1)));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EXDEV") throw toCairnError(error, `keep ${staging}`);
    fs.appendFileSync(path.join(place, "staging-place"), `${staging}\n`, { mode: 0o600 });
  }
}

/** Which path each file of the staging folder has, as far as the steps can be read: `n3<tab>path`. */
function writeNames(journal: string, place: string): void {
  let text: string;
  try {
    text = fs.readFileSync(path.join(journal, RESTORE_STEPS), "utf8");
  } catch {
    return;
  }
  const lines = text.split("\n").flatMap((line) => {
    try {
      const step = JSON.parse(line) as { path?: unknown; staged?: unknown; kept?: unknown };
      const name = typeof step.staged === "number" ? `n${step.staged}` : `d${String(step.kept)}`;
      return typeof step.path === "string" && name !== "dundefined"
        ? [`${name}\t${Buffer.from(step.path, "base64").toString("utf8")}\n`]
        : [];
    } catch {
      return [];
    }
  });
  durableWrite(path.join(place, "names"), Buffer.from(lines.join("")), { mode: 0o600 });
}

/** Nobody but its owner knows when it is not wanted any more. */
function keptFindings(workspace: Workspace): Checkup[] {
  const directory = workspace.found.control.kept;
  return [...strandedFindings(workspace), ...setAsideFindings(directory)];
}

/** What a restore had staged and displaced on a file system that was not mounted any more when it was finished. */
function strandedFindings({ root, found }: Workspace): Checkup[] {
  const journals = journalText(found.paths.journal);
  if (!fs.existsSync(root)) return [];
  return [root, ...mountsInside(root).map(({ mountPoint }) => mountPoint)]
    .flatMap(stagedIn)
    .filter((place) => !journals.includes(path.basename(place.toString("utf8"))))
    .map((place) => ({
      kind: "kept",
      severity: "info",
      detail: fs.existsSync(joinRaw(place, "names"))
        ? `${printablePath(place)} keeps what a restore took away and could not read, so that no save point has it; remove it when it is not needed`
        : `${printablePath(place)} is what an interrupted restore left there while nothing, or something else, was mounted; what was there before is in the save point that was made before it; remove it when it is not needed`,
    }));
}

function setAsideFindings(directory: string): Checkup[] {
  return namesIn(directory).map((name) => ({
    kind: "kept",
    severity: "info",
    detail: `${path.join(directory, name)} keeps what an interrupted ${name.split("-")[0]} left (${namesIn(path.join(directory, name)).toSorted().join(", ")}); remove it when it is not needed`,
  }));
}
