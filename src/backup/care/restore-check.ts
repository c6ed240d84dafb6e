import { append } from "../../append.ts";
import { mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { DatabaseProcess } from "../../capture/sqlite/database-process.ts";
import { advice, CairnError, option, reworded, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { newWorkDirectory, removeDeadWorkDirectories } from "../../fs/work-directory.ts";
import type {
  BackupProblem,
  CheckedProbe,
  DatabaseProof,
  DrillOptions,
  DrillResult,
  RestoredForCheck,
  VerifyBackupOptions,
  VerifyBackupResult,
} from "../../contract/index.ts";
import { requireOutsideWorkspaces } from "../../workspace/place/guards.ts";
import type { ListedSnapshot, SnapshotListing } from "../../repository/repository.ts";
import { verifyRepository } from "./verify.ts";
import { chosenSnapshots, inOrder, newestOfEach, restoredSnapshot, warnOfFuture } from "../open/snapshots.ts";
import { callOf, type OpenRepository } from "../open/open-repository.ts";
import type { ProbeRecord } from "../../formats/records/checks.ts";
import { checkedProbe, isOwnProbe, runProbe } from "../open/checks.ts";
import type { Ask } from "../restore/prove.ts";
import { restoreBackup } from "../restore/restore.ts";
import { restoredDatabases } from "../restore/restored-databases.ts";

type Checking = Omit<DrillOptions, "folder">;

/** Verifies a repository; with `restoreCheck` also restores snapshots and checks the result. */
export async function verifyBackup(access: OpenRepository, options: VerifyBackupOptions): Promise<VerifyBackupResult> {
  const started = Date.now();
  const verified = await verifyRepository(access, options);
  const { restored, problems } =
    options.restoreCheck === true
      ? await checkByRestoring(access, options, (listing) => namedOrLatest(listing, options))
      : { restored: [], problems: [] };
  const all = [...verified.problems, ...problems];
  return { ...verified, restored, problems: all, duration_ms: Date.now() - started };
}

/**
 * Restores snapshots and checks the copies as {@link verifyBackup} does: the newest snapshot of each host and set of folders.
 * `folder`: only snapshots of this folder. Throws `not_found` if there is no snapshot.
 */
export async function drillRestore(access: OpenRepository, options: DrillOptions): Promise<DrillResult> {
  const started = Date.now();
  const filter = options.folder === undefined ? {} : { paths: [options.folder] };
  const done = await checkByRestoring(access, options, (listing) => {
    // Throws if there is none.
    chosenSnapshots(listing, { ...filter, snapshots: ["latest"] });
    return newestOfEach(chosenSnapshots(listing, filter), 1);
  });
  return { ...access.info, ...done, duration_ms: Date.now() - started };
}

function namedOrLatest(
  listing: SnapshotListing,
  { snapshots: named = [], onWarning }: VerifyBackupOptions,
): ListedSnapshot[] {
  if (named.length > 0) return chosenSnapshots(listing, { snapshots: named });
  const sorted = inOrder(listing.snapshots);
  const newest = sorted.slice(-1);
  for (const each of newest) warnOfFuture(sorted, each, onWarning);
  return newest;
}

/**
 * Restores snapshots one after the other into a temporary folder, with caches of its own as on a new machine, reads the
 * written files back, lets SQLite check each database, and removes the folder. A kill leaves a folder that the next
 * check removes.
 */
async function checkByRestoring(
  access: OpenRepository,
  options: Checking & Pick<VerifyBackupOptions, "snapshots">,
  choose: (listing: SnapshotListing) => ListedSnapshot[],
): Promise<{ restored: RestoredForCheck[]; problems: BackupProblem[] }> {
  return access.asStored(async () => {
    const listing = await access.repository.listSnapshots(options.signal);
    // The newest snapshot is not known while some are unreadable; the rest of the report is still useful.
    if ((options.snapshots ?? []).length === 0 && listing.damaged.length > 0)
      return { restored: [], problems: listing.damaged.map(({ name }) => problem(name, "restore_failed", UNREADABLE)) };
    const chosen = choose(listing);
    const parent = scratchFolder(access, options);
    const restored: RestoredForCheck[] = [];
    const problems: BackupProblem[] = [];
    for (const listed of chosen) {
      const scratch = newWorkDirectory(parent);
      try {
        const done = await checkOne(access, { listed, scratch }, options);
        restored.push(done.restored);
        append(problems, done.problems);
      } catch (error) {
        if (toCairnError(error).code !== "no_space") throw error;
        throw reworded(toCairnError(error), {
          hint: advice`name a folder on a file system with more room: ${option("scratch", "--scratch DIR")}`,
        });
      } finally {
        removeAll(scratch);
      }
    }
    return { restored, problems };
  });
}

/** Makes the folder for restores, and removes copies of killed checks. Throws `refused` for a folder that saves would read. */
function scratchFolder({ cache }: OpenRepository, { scratch }: Checking): string {
  const parent = scratch === undefined ? join(cache, "work") : resolve(scratch);
  requireOutsideWorkspaces(parent, advice`name a folder outside of workspaces: ${option("scratch", "--scratch DIR")}`);
  try {
    makeFolder(parent);
  } catch (error) {
    throw toCairnError(error, `make the folder ${parent} to restore into`);
  }
  removeDeadWorkDirectories(parent);
  return parent;
}

async function checkOne(
  access: OpenRepository,
  { listed, scratch }: { listed: ListedSnapshot; scratch: string },
  options: Checking,
): Promise<{ restored: RestoredForCheck; problems: BackupProblem[] }> {
  const { id } = listed;
  const restored: RestoredForCheck = {
    ...restoredSnapshot(listed),
    paths: listed.snapshot.paths,
    entries: 0,
    bytes: 0,
    state_digest: null,
    databases: [],
    rows: [],
    probes: [],
    receipt: null,
  };
  const { signal } = options;
  const asked: BackupProblem[] = [];
  const ask: Ask = async (probes, folder) => {
    const found = await askAgain(id, { probes, folder }, options);
    append(asked, found.problems);
    restored.probes = found.checked;
    return found.checked;
  };
  let result: Awaited<ReturnType<typeof restoreBackup>>;
  mkdirSync(scratch, { mode: 0o700 });
  try {
    result = await restoreBackup(
      access.withCache(join(scratch, "cache/repositories", access.repository.id)),
      { snapshot: id, to: join(scratch, "restored"), asStored: true, ask },
      callOf(options),
    );
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
    return { restored, problems: [problem(id, "restore_failed", { detail: error.message })] };
  }
  failpoint("restore-check.restored");
  restored.entries = result.entries;
  restored.bytes = result.bytes;
  restored.state_digest = result.proof?.state_digest ?? null;
  restored.receipt = result.proof?.receipt ?? null;
  const problems = result.left_out
    .filter(({ reason }) => reason === "damaged")
    .map(({ detail, path, path_b64 }) =>
      problem(id, "restore_incomplete", { detail, path: path_b64 === undefined ? { path } : { path, path_b64 } }),
    );
  restored.rows = result.proof?.rows ?? [];
  const known = result.proof?.databases ?? [];
  const checked = await checkDatabases({ id, scratch, known }, signal);
  restored.databases = checked.databases;
  return { restored, problems: [...problems, ...asked, ...checked.problems] };
}

/**
 * Runs the snapshot's probes on a restored copy, which they may change. Never runs a command that only the repository
 * knows: this user gave it on this machine, or gives it now.
 */
async function askAgain(
  id: string,
  { probes, folder }: { probes: readonly ProbeRecord[]; folder: string | null },
  { probe: given = [], signal }: Checking,
): Promise<{ checked: CheckedProbe[]; problems: BackupProblem[] }> {
  const checked: CheckedProbe[] = [];
  const problems: BackupProblem[] = [];
  for (const before of probes) {
    const { command, status, output_b64: output } = before;
    const note = (why: string): void => {
      checked.push(checkedProbe(before, null));
      const detail = `the probe was not run on the restored copy, because ${why}: ${command}`;
      problems.push({ ...problem(id, "probe_not_run", { detail }), severity: "note" });
    };
    if (folder === null) note("the copy could not be proven equal to the snapshot");
    else if (status === null) note("it was stopped when the backup was made");
    else if (!given.includes(command) && !isOwnProbe(command)) note("you have not given it on this machine");
    else {
      const { record, failure } = await runProbe(command, folder, signal);
      const isMissing = record.status !== status && (record.status === 126 || record.status === 127);
      const isEqual = record.status === status && record.output_b64 === output;
      if (isMissing) note(`it ${failure}`);
      else checked.push(checkedProbe(before, isEqual));
      if (isEqual || isMissing) continue;
      const now = failure === null || record.status === status ? `prints ${shownOutput(record)}` : failure;
      const detail = `the restored copy answers otherwise than when the backup was made: ${command} ${now}; before it printed ${shownOutput(before)}`;
      problems.push(problem(id, "probe_differs", { detail }));
    }
  }
  return { checked, problems };
}

function shownOutput({ output_b64: output }: ProbeRecord): string {
  const text = Buffer.from(output, "base64").toString("utf8").trim();
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}

async function checkDatabases(
  { id, scratch, known }: { id: string; scratch: string; known: readonly DatabaseProof[] },
  signal: AbortSignal | undefined,
): Promise<{ databases: DatabaseProof[]; problems: BackupProblem[] }> {
  const aside = join(scratch, "database");
  mkdirSync(aside, { mode: 0o700 });
  const checker = new DatabaseProcess();
  const problems: BackupProblem[] = [];
  const databases: DatabaseProof[] = [];
  try {
    for await (const { path, file } of restoredDatabases(Buffer.from(join(scratch, "restored")), aside, signal)) {
      const proof = await checker.prove({ path: Buffer.from(file), own: true }, signal);
      const shown = displayPath(path);
      const label = known.find((each) => each.path === shown.path && each.path_b64 === shown.path_b64)?.label ?? null;
      databases.push({ ...shown, ...proof, label });
      if (proof.problems.length === 0) continue;
      const detail = `SQLite finds the database damaged: ${proof.problems.slice(0, 3).join("; ")}`;
      problems.push(problem(id, "database_damaged", { detail, path: displayPath(path) }));
    }
  } finally {
    await checker.close();
  }
  return { databases, problems };
}

function problem(
  snapshot: string,
  kind: string,
  what: { detail: string; path?: { path: string; path_b64?: string } },
): BackupProblem {
  const losses = what.path === undefined ? [] : [{ snapshot_id: snapshot, ...what.path }];
  return { kind, object: snapshot, detail: what.detail, severity: "damage", losses };
}

const UNREADABLE = {
  detail:
    "the snapshot cannot be read and may be the newest, so no snapshot was restored: name a snapshot by its id, or forget this one",
};
