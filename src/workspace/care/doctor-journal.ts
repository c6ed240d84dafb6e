import fs from "node:fs";
import path from "node:path";
import { STAGING_NAME } from "../../archive/scan/task.ts";
import type { StoreFinding } from "../store/store-care.ts";
import { toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { durableMkdir } from "../../fs/durable.ts";
import { namesIn } from "../../fs/paths/names-in.ts";
import { joinRaw, printablePath } from "../../fs/paths/safe-path.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { listWorkspaces } from "../place/control-directory.ts";
import { newKeptPlace, workspacePaths } from "../place/control-layout.ts";
import { type Journal, JOURNALS } from "../points/journals.ts";
import type { Workspace } from "../open/workspace.ts";

/**
 * Finds journals that cannot be read, so that no command can finish what they say, and what earlier ones left. Mending
 * takes one out of the way and deletes nothing.
 * - The staging folder goes aside with what was staged in it and displaced into it.
 * - The journal ●, then its other file. A kill before ● leaves the finding, after it nothing that says anything.
 */
export function* journalFindings(workspace: Workspace): Iterable<StoreFinding> {
  const { control, paths } = workspace.found;
  for (const journal of JOURNALS) {
    try {
      journal.read(paths.journal);
    } catch (error) {
      const { code, message } = toCairnError(error);
      // The newer version that wrote it can finish it.
      if (code === "newer_version") yield { kind: "journal", severity: "damage", detail: message };
      else yield damagedJournal(workspace, journal, message);
    }
  }
  yield* strandedFindings(workspace);
  // Nobody but its owner knows when it is not wanted any more.
  for (const name of namesIn(control.kept)) {
    const place = path.join(control.kept, name);
    yield {
      kind: "kept",
      severity: "info",
      detail: `${place} holds files that an interrupted ${name.split("-")[0]} left (${namesIn(place).toSorted().join(", ")}); remove it when you no longer need it`,
    };
  }
}

function damagedJournal(workspace: Workspace, journal: Journal, problem: string): StoreFinding {
  const { operation } = journal;
  const place = newKeptPlace(workspace.found.control, operation);
  const left = {
    restore: () => `part of the folder may be restored and part not; ${undoOf(workspace)}`,
    cleanup: () =>
      "some of the points or paths to remove may still be there; all points that `cairn history` lists are whole",
    seal: () => "the next seal reads the point again",
    conversion: () => "the folder is whole; the copy, or the original folder, stays beside it (.cairn-original-…)",
  }[operation]();
  return {
    kind: "journal",
    severity: "damage",
    detail: `a ${operation} was interrupted and cannot be finished: ${problem}; ${left}`,
    repair: `the journal and the staged or displaced files move to ${place}; the folder stays unchanged`,
    mend: () => setAside(workspace, journal, place),
  };
}

/** Says how to get at what was there before the restore. */
function undoOf(workspace: Workspace): string {
  const undo = workspace.points.list().points.find(({ descriptor }) => descriptor.undo);
  return undo === undefined
    ? "the undo point of the restore is missing"
    : `the state before the restore is the save point ${undo.descriptor.save_point_id.slice(0, 8)}`;
}

function setAside(workspace: Workspace, { files, operation }: Journal, place: string): void {
  const { journal } = workspace.found.paths;
  durableMkdir(place);
  if (operation === "restore") for (const staging of stagingOf(workspace)) moveStaging(staging, place);
  failpoint("doctor.staging-kept");
  for (const name of files) {
    const file = path.join(journal, name);
    if (fs.lstatSync(file, { throwIfNoEntry: false }) === undefined) continue;
    fs.renameSync(file, path.join(place, name));
    failpoint("doctor.journal-kept");
  }
}

/** Staging folders of this workspace's restores: those that lie there and that no other workspace's journal names. */
function stagingOf(workspace: Workspace): string[] {
  const { control, paths } = workspace.found;
  const there = [control.temporary, workspace.root.toString("utf8")].flatMap((directory) =>
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

function journalText(journal: string): string {
  const texts = namesIn(journal).map((name) => {
    const file = path.join(journal, name);
    try {
      return fs.lstatSync(file).isSymbolicLink() ? fs.readlinkSync(file) : readRegular(file).toString("utf8");
    } catch {
      // Gone meanwhile: its restore has ended.
      return "";
    }
  });
  return texts.join("\n");
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

/** Staging folders of a restore that was finished while the folder was not mounted, or by an earlier version before the power failed. */
function* strandedFindings({ root, found }: Workspace): Iterable<StoreFinding> {
  const journals = journalText(found.paths.journal);
  for (const name of namesIn(root.toString("utf8"))) {
    if (!STAGING_NAME.test(name) || journals.includes(name)) continue;
    const place = joinRaw(root, name);
    const shown = printablePath(place);
    yield {
      kind: "kept",
      severity: "info",
      detail: fs.existsSync(joinRaw(place, "names"))
        ? `${shown} holds files that a program changed while a restore replaced them; no save point has these versions; remove it when you no longer need them`
        : `${shown} was left by a restore after a power failure, or while the folder was not mounted; the undo point of that restore has the replaced files; remove it when you no longer need it`,
    };
  }
}
