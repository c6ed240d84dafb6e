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
import type { Journaled, Workspace } from "../open/workspace.ts";

/**
 * Finds journals that cannot be read, which no command can finish, and leftovers of earlier ones. The repair moves
 * files aside and deletes nothing.
 * - The staging folder is moved aside with its staged and displaced entries.
 * - The journal ●, then its other file. After a kill before ● the finding stays. After ● nothing refers to the other
 * file.
 */
export function* journalFindings(workspace: Workspace): Iterable<StoreFinding> {
  const { control } = workspace.found;
  for (const { journaled } of workspace.parts.recoveries) {
    if (journaled === undefined) continue;
    try {
      journaled.record(workspace).check();
    } catch (error) {
      const { code, message } = toCairnError(error);
      // The newer version that wrote the journal can finish it.
      if (code === "newer_version") yield { kind: "journal", severity: "damage", detail: message };
      else yield damagedJournal(workspace, journaled, message);
    }
  }
  yield* strandedFindings(workspace);
  // Only the owner knows when the kept files are not needed any more.
  for (const name of namesIn(control.kept)) {
    const place = path.join(control.kept, name);
    yield {
      kind: "kept",
      severity: "info",
      detail: `${place} holds files that an interrupted ${name.split("-")[0]} left (${namesIn(place).toSorted().join(", ")}); remove it when you no longer need it`,
    };
  }
}

function damagedJournal(workspace: Workspace, journaled: Journaled, problem: string): StoreFinding {
  const { operation } = journaled;
  const place = newKeptPlace(workspace.found.control, operation);
  return {
    kind: "journal",
    severity: "damage",
    detail: `a ${operation} was interrupted and cannot be finished: ${problem}; ${journaled.unreadable(workspace)}`,
    repair: `the journal and the staged or displaced files move to ${place}; the folder stays unchanged`,
    mend: () => setAside(workspace, journaled, place),
  };
}

function setAside(workspace: Workspace, { operation, record }: Journaled, place: string): void {
  durableMkdir(place);
  if (operation === "restore") for (const staging of stagingOf(workspace)) moveStaging(staging, place);
  failpoint("doctor.staging-kept");
  for (const file of record(workspace).files) {
    fs.renameSync(file, path.join(place, path.basename(file)));
    failpoint("doctor.journal-kept");
  }
}

/** Lists staging folders of this workspace's restores: existing ones that no other workspace's journal names. */
function stagingOf(workspace: Workspace): string[] {
  const { control, paths } = workspace.found;
  const there = [control.temporary, workspace.root.toString("utf8")].flatMap((directory) =>
    namesIn(directory)
      .filter((name) => STAGING_NAME.test(name))
      .map((name) => path.join(directory, name)),
  );
  // The journals are read after the folders: a restore writes its journal before it makes its staging folder.
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
      // The file was removed meanwhile: its restore has ended.
      return "";
    }
  });
  return texts.join("\n");
}

/** Moves a staging folder to the kept place. On another file system it stays; no save and no cleanup touches it there. */
function moveStaging(staging: string, place: string): void {
  try {
    fs.renameSync(staging, path.join(place, path.basename(staging).slice(1)));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EXDEV") throw toCairnError(error, `keep ${staging}`);
    fs.appendFileSync(path.join(place, "staging-place"), `${staging}\n`, { mode: 0o600 });
  }
}

/** Finds staging folders of restores that ended while the folder was not mounted, or whose removal a power failure lost. */
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
