import { existsSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { CairnError, reworded } from "../../../errors.ts";
import { makeFolder } from "../../../fs/make-folder.ts";
import { shellPath } from "../../../fs/paths/safe-path.ts";
import { removeAll } from "../../../fs/remove-all.ts";
import { machinesRoot } from "../../../fs/users.ts";
import { unfinishedBeside } from "../../../fs/work-directory.ts";
import type {
  BackupRepository,
  Client,
  RestoreBackupResult,
  RestoredSnapshot,
  RestoreInPlaceResult,
} from "../../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { EXIT_PARTLY } from "../../envelope.ts";
import type { Input } from "../../input.ts";
import { parseBase64, usage } from "../../input.ts";
import {
  formatBytes,
  formatCount,
  formatCounts,
  formatDuration,
  formatInstant,
  plural,
  printable,
  shownPath,
} from "../../render/format.ts";
import { restoreOutcome } from "../../restore-outcome.ts";
import { PATH_B64, splitSnapshot } from "../../shown.ts";
import { FILTER_OPTIONS, readFilter } from "./list.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";
import { RestoreBackupOptions, RestoreInPlaceOptions } from "../../../contract/snapshots.ts";
import { pick } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(
  pick(
    RestoreBackupOptions,
    "receipt",
    "jobs",
    "sparse",
    "overwrite",
    "takeOwnership",
    "ownershipByName",
    "dryRun",
    "plan",
    "include",
    "exclude",
  ),
);
const PROVE = {
  flags: "--prove <how>",
  text: "read the restored files again, also if only a part of the snapshot is restored: from the disk, or from memory (faster, but proves nothing about the disk); no: read nothing again; default: disk for whole snapshots",
  values: ["disk", "memory", "no"],
} as const;
const SAME = "with the same size and times";
const SAME_NOT_READ = `${SAME} (content not read)`;
const IN_PLACE = new VerbOptions(pick(RestoreInPlaceOptions, "keepPresent", "throughSqlite"));

export const command: CommandDefinition = {
  name: "backup restore",
  arguments: [
    {
      name: "<snapshot[:folder]>",
      text: "a snapshot (id, prefix, latest, a save point's id, or a time such as yesterday); with :FOLDER only the content of that folder, without its path",
    },
    { name: "[path...]", text: "only these paths, relative to the snapshot's root or to FOLDER" },
  ],
  options: [
    ...REPOSITORY_OPTIONS,
    ...FILTER_OPTIONS,
    { flags: "--to <dir>", text: "the folder to write into: absent or empty, unless --overwrite is given" },
    {
      flags: "--in-place",
      text: "make the workspace's folder equal to the snapshot; the folder is saved first, and `cairn undo` reverts the restore",
      excludes: ["--to", "--overwrite", "--ownership-by-name"],
    },
    {
      flags: "--to-command <command>",
      text: "write one file to the stdin of a command for the shell, which never sees the end of a part of the file; the command's exit status counts, and a command that reads only a part exits 10",
      excludes: [
        "--to",
        "--in-place",
        "--prove",
        ...OPTIONS.definitions.map(({ flags }) => /--[\w-]+/.exec(flags)![0]),
      ],
    },
    {
      flags: "--as-machine <name>",
      text: "make a new virtual machine of the snapshot, which is a backup of a machine's saved states",
      excludes: [
        "--to",
        "--in-place",
        "--to-command",
        "--path-b64",
        ...(["overwrite", "dryRun", "plan", "include", "exclude"] as const).map((each) => OPTIONS.optionOf(each)),
      ],
    },
    ...OPTIONS.definitions,
    PROVE,
    { ...PATH_B64, text: "a path whose name is not UTF-8; may be repeated", repeat: true },
  ],
  examples: [
    {
      line: "cairn backup restore latest --to /srv/back -r /srv/backups",
      text: "restore and verify the newest snapshot",
    },
    {
      line: "cairn backup restore latest --in-place -r /srv/backups",
      text: "restore the current folder from its last backup",
    },
    {
      line: "cairn backup restore latest --in-place --plan -r /srv/backups",
      text: "print what that would change",
    },
    {
      line: "cairn backup restore latest --as-machine web-2 -r /srv/backups",
      text: "make a virtual machine from a backup of a machine's saved states",
    },
    {
      line: "cairn backup restore 1a2b3c4d src --to /tmp/here -r /srv/backups",
      text: "restore one folder, as /tmp/here/src",
    },
    {
      line: "cairn backup restore 1a2b3c4d:src --to /tmp/src -r /srv/backups",
      text: "restore the content of one folder",
    },
    {
      line: "cairn backup restore latest --to /tmp/docs --include '*.md' --exclude drafts -r /srv/backups",
      text: "choose files by patterns, of names or (with a slash) of paths",
    },
  ],
  async run(context, input) {
    const to = input.text("to");
    const isInPlace = input.flag("inPlace");
    const line = input.text("toCommand");
    if (line !== undefined) return intoCommand(context, input, line);
    const machine = input.text("asMachine");
    if (machine !== undefined) return asMachine(context, input, machine);
    if (!isInPlace && (to ?? "") === "")
      throw usage("backup restore needs a target: --to DIR, --in-place or --as-machine NAME");
    const [snapshot, subfolder] = splitSnapshot(input.required(0));
    const paths = [...input.rest(1), ...input.list("pathB64").map((text) => parseBase64(text, "--path-b64"))];
    return restoreSnapshot(context, input, { snapshot, subfolder, paths, latestOf: readFilter(context, input) });
  },
};

/** Returns the members of the call that `--prove` sets. */
function proofOf(input: Input): Pick<RestoreBackupOptions, "prove" | "proveFrom"> {
  const how = input.choice("prove", PROVE.values);
  return how === "no" ? { prove: false } : how === undefined ? {} : { proveFrom: how };
}

/** Restores a snapshot, or `paths` of it, into the folder of `--to`, else in place. No `paths`: everything. */
export async function restoreSnapshot(
  context: Context,
  input: Input,
  {
    snapshot,
    subfolder,
    paths,
    latestOf,
    beginsAt,
  }: Required<Pick<RestoreBackupOptions, "paths" | "latestOf">> & {
    snapshot: string;
    subfolder: string | undefined;
    /** The folder at which relative paths begin. Absent: they begin at the top of the snapshot. */
    beginsAt?: string;
  },
): Promise<Outcome> {
  const to = input.text("to");
  const options: RestoreBackupOptions = {
    ...context.callOptions(),
    ...OPTIONS.read(context, input),
    ...proofOf(input),
  };
  if (subfolder !== undefined) options.subfolder = subfolder;
  if (paths.length > 0) options.paths = paths;
  if (Object.keys(latestOf).length > 0) options.latestOf = latestOf;
  if (to === undefined) return inPlace(context, input, { snapshot, options });
  const names = subfolder === undefined ? paths : [subfolder];
  const restore = async (repository: BackupRepository): Promise<Outcome> => {
    if (beginsAt !== undefined && names.some((each) => !Buffer.from(each).toString("latin1").startsWith("/")))
      await requireSavedAt(context, repository, { snapshot, latestOf, beginsAt });
    const result = await repository.restore(snapshot, context.place(to), options);
    return {
      data: result,
      exitStatus: result.left_out.length === 0 ? 0 : EXIT_PARTLY,
      text: async () => {
        const planned = await renderPlanned(context, result);
        if (planned !== null) return [...render(context, result), planned].join("\n");
        const { renderLeftOut } = await import("../../render/points.ts");
        return [...render(context, result), ...renderLeftOut(result.left_out, context.style)].join("\n");
      },
    };
  };
  return withRepository(context, input, restore, options.dryRun === true ? undefined : "restore");
}

/**
 * Throws `usage` for a snapshot of another program: its paths begin where that program was told, not at the workspace's
 * folder.
 */
async function requireSavedAt(
  context: Context,
  repository: BackupRepository,
  of: { snapshot: string; latestOf: object; beginsAt: string },
): Promise<void> {
  const options = { ...context.callOptions(), ...of.latestOf, snapshots: [of.snapshot] };
  const [found] = (await repository.list(options)).snapshots;
  if (found === undefined || found.save_point_id !== null) return;
  throw usage(
    `snapshot ${found.snapshot_id.slice(0, 8)} is no save point's, so its paths do not begin at this folder`,
    `name the path as the snapshot has it: backup:${found.snapshot_id.slice(0, 8)}:${of.beginsAt}/PATH`,
  );
}

/** Writes the bytes of one file to a command. Each blob is verified before it is written. */
async function intoCommand(context: Context, input: Input, line: string): Promise<Outcome> {
  const [snapshot, subfolder] = splitSnapshot(input.required(0));
  const paths = [...input.rest(1), ...input.list("pathB64").map((text) => parseBase64(text, "--path-b64"))];
  if (paths.length !== 1 || subfolder !== undefined || line.trim() === "")
    throw usage(
      "--to-command needs a command and the path of one file: backup restore latest FILE --to-command COMMAND",
    );
  const { feedCommand } = await import("../../../fs/shell-command.ts");
  return withRepository(context, input, async (repository) => {
    const options = { ...context.callOptions(), ...readFilter(context, input) };
    const { kind, snapshot: of, entries, ...named } = await repository.show(snapshot, paths[0]!, options);
    if (kind !== "file")
      throw usage(`${printable(named.path)} is a ${kind}, and only a file can be written to a command`);
    const content = repository.read(of.snapshot_id, paths[0]!, options);
    const { signal } = options;
    const bytes = await feedCommand(line, content, { toStderr: context.globals.json === true, signal });
    const unread = (entries[0]?.size ?? bytes) - bytes;
    if (unread > 0)
      options.onWarning?.(`the command ended without reading ${plural(unread, "byte")} of ${printable(named.path)}`);
    return {
      data: { snapshot_id: of.snapshot_id, path: named.path, bytes, unread_bytes: unread },
      exitStatus: unread > 0 ? EXIT_PARTLY : 0,
      text: () => `the command read ${formatBytes(bytes)} of ${shownPath(named.path)}`,
    };
  });
}

/**
 * Makes a machine of a backup of a machine's saved states. Steps: the snapshot is restored and proved in a temporary
 * folder among the machines; a machine is made of these files, as of an export. The machine's record is the commit.
 */
async function asMachine(context: Context, input: Input, name: string): Promise<Outcome> {
  if (input.rest(1).length > 0) throw usage("a machine needs its whole snapshot, and paths are named");
  const [snapshot, subfolder] = splitSnapshot(input.required(0));
  const root = machinesRoot(context.env);
  makeFolder(root);
  const { requireFreeName } = await import("../../../capture/vm/life.ts");
  requireFreeName(root, name);
  const library = await context.library();
  const stage = unfinishedBeside(join(root, "restored"));
  const restore = async (repository: BackupRepository): Promise<Outcome> => {
    try {
      const result = await repository.restore(snapshot, stage, {
        ...context.callOptions(),
        ...OPTIONS.read(context, input),
        ...proofOf(input),
        sparse: true,
        latestOf: readFilter(context, input),
        ...(subfolder === undefined ? {} : { subfolder }),
      });
      if (result.left_out.length > 0)
        throw new CairnError(
          "incomplete",
          `${plural(result.left_out.length, "file")} of the machine could not be restored`,
        );
      const made = { ...context.callOptions(), fromDirectory: stage, isRestored: true };
      const info = await library.cloneMachine(root, name, made);
      const next = info.has_memory ? "runs from there" : "is stopped";
      return {
        data: info,
        text: () => `${context.style.green("restored")} ${nameOf(result)}: the machine ${printable(name)} ${next}`,
      };
    } finally {
      removeAll(stage);
    }
  };
  return withRepository(context, input, restore, "restore");
}

async function inPlace(
  context: Context,
  input: Input,
  { snapshot, options }: { snapshot: string; options: RestoreBackupOptions },
): Promise<Outcome> {
  return withRepository(context, input, async (repository) => {
    const client = await openedInPlace(context, { repository, snapshot, options });
    const result = await withoutNewWorkspace(context, client, async () =>
      client.restoreBackup(repository, snapshot, { ...options, ...IN_PLACE.read(context, input) }),
    );
    const outcome = restoreOutcome(context, client, { result });
    const about = [`  ${nameOf(result)}`, ...renderProof(context, result)];
    return {
      ...outcome,
      text: async () => (await renderPlanned(context, result)) ?? [await outcome.text?.(), ...about].join("\n"),
    };
  });
}

/** Releases a folder that became a workspace for a restore, if the restore fails before anything was saved. */
async function withoutNewWorkspace<T>(context: Context, client: Client, restore: () => Promise<T>): Promise<T> {
  try {
    return await restore();
  } catch (error) {
    if (client.created && (await hasNoPoint(client).catch(() => false)))
      await client.release({ deletePoints: true }).catch(() => undefined);
    throw error;
  }
}

async function hasNoPoint(client: Client): Promise<boolean> {
  const { save_points: points, damaged } = await client.history(undefined, 1, { all: true });
  return points.length + damaged.length === 0;
}

/**
 * Returns the folder's workspace. Makes a folder that was never saved a workspace, if the snapshot exists and no plan is wanted. On
 * a new machine the folder does not exist yet, so there is nothing to save.
 */
async function openedInPlace(
  context: Context,
  of: { repository: BackupRepository; snapshot: string; options: RestoreBackupOptions },
): Promise<Client> {
  const { repository, snapshot, options } = of;
  try {
    return await context.open();
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "not_a_workspace") throw error;
    const folder = context.folder();
    const named = shellPath(folder);
    if (!existsSync(folder))
      throw reworded(error, { hint: `create it first (mkdir -p ${named}), or restore with --to ${named} instead` });
    const latestOf = options.latestOf ?? { paths: [realpathSync.native(folder)] };
    await repository.list({ ...context.callOptions(), ...latestOf, snapshots: [snapshot] });
    if (options.dryRun !== true) return newWorkspace(context, named);
    throw reworded(error, {
      hint: "a plan makes no folder a workspace; without --plan the folder is saved first, and `cairn undo` reverts the restore",
    });
  }
}

/** On a new machine mostly home directories are restored, and a guard refuses to make them workspaces. The override is a separate command. */
async function newWorkspace(context: Context, named: string): Promise<Client> {
  try {
    return await context.openOrInit();
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "refused") throw error;
    const guard = error.details?.["guard"];
    if (typeof guard !== "string") throw error;
    throw reworded(error, {
      hint: `if this is intended: cairn init ${named} --allow ${guard}, then run this command again; or restore with --to into a separate folder`,
    });
  }
}

/** Returns the text of a plan; null for the result of a restore. */
async function renderPlanned(
  { style }: Context,
  result: RestoreInPlaceResult | RestoreBackupResult,
): Promise<string | null> {
  const { plan_id: id, planned_entries: entries, left_out } = result;
  if (id === null || entries === null) return null;
  const { renderPlan } = await import("../../render/restore.ts");
  return renderPlan({ id, entries, left_out, holders: [] }, nameOf(result), style);
}

/** Names the snapshot: `latest` may be of another machine. */
function nameOf({ snapshot_id: id, hostname, created_at: at }: RestoredSnapshot): string {
  return `snapshot ${id.slice(0, 8)} of ${printable(hostname)}, ${formatInstant(at)}`;
}

function render({ style }: Context, result: RestoreBackupResult): string[] {
  const over = renderOver(result);
  if (result.dry_run)
    return [
      `would write ${plural(result.entries, "entry")}, ${formatBytes(result.bytes)} into ${printable(result.target)}`,
      ...over,
    ];
  const lines = [
    `${style.green("restored")} ${nameOf(result)} into ${printable(result.target)}`,
    `  ${plural(result.entries, "entry")}, ${formatBytes(result.bytes)} in ${formatDuration(result.duration_ms)}`,
  ];
  if (result.kept_bytes > 0)
    lines.push(`  ${formatBytes(result.kept_bytes)} had already been written by an earlier restore that was killed`);
  const unknown = result.unknown_owners.map(printable).join(", ");
  if (result.owners === "names")
    lines.push(
      `  owners and groups by name${unknown === "" ? "" : `; by number, because the name is unknown here: ${unknown}`}`,
    );
  return [...lines, ...over, ...renderProof({ style }, result)];
}

/** Tells what became of the entries that the folder had. */
function renderOver({ overwritten, read_from: readFrom }: RestoreBackupResult): string[] {
  if (overwritten === null) return [];
  const { written, left, unchanged, left_first: first } = overwritten;
  const counts = { written, left, [readFrom === null ? SAME_NOT_READ : SAME]: unchanged };
  const named = first.map(({ path }) => `  left: ${shownPath(path)}`);
  const more = left > first.length ? [`  left: ${formatCount(left - first.length)} more`] : [];
  return [`  ${formatCounts(counts)}; no other entry of the folder was changed`, ...named, ...more];
}

function renderProof(
  { style }: Pick<Context, "style">,
  result: Pick<RestoreBackupResult, "proof" | "read_from" | "untold_files" | "left_out">,
): string[] {
  const { proof, untold_files: untold, left_out: leftOut } = result;
  const from = result.read_from === "memory" ? " (from memory, if the system cached it)" : "";
  if (proof === null && untold === null)
    return [style.dim("  the restored files were not read again; `cairn backup restore --prove disk` does that")];
  if (proof === null) {
    const told = leftOut.length === 0 ? "every entry" : "every entry that is not listed above";
    const but = untold === 0 ? "" : `; ${plural(untold!, "file")} could not be compared`;
    return [`  read again${from}: ${told} is equal to the snapshot${but}`];
  }
  const lines = [`  read again${from} and found equal: state digest ${proof.state_digest.slice(0, 12)}`];
  if (!proof.metadata_equal) lines.push(style.dim("  some owners, times or attributes differ from the snapshot"));
  if (proof.receipt !== null) lines.push(`  receipt: ${printable(proof.receipt)}`);
  return lines;
}
