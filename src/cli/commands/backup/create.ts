import { createReadStream, fstatSync, type Stats, statSync } from "node:fs";
import { basename } from "node:path";
import type {
  BackupRepository,
  CreateBackupResult,
  PathsBackupResult,
  StreamBackupResult,
} from "../../../contract/index.ts";
import { CairnError, reworded } from "../../../errors.ts";
import { unprovenBy } from "../../../formats/records/receipt.ts";
import { splitTags } from "../../../formats/restic/snapshot.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import type { Input } from "../../input.ts";
import { EXIT_PARTLY, hasFailed } from "../../envelope.ts";
import { readExcludes, savingOptions } from "../../exclude-files.ts";
import { pathsFrom } from "../../files-from.ts";
import { usage } from "../../input.ts";
import { formatBytes, formatDuration, plural, printable, shellQuote } from "../../render/format.ts";
import { renderLeftOut } from "../../render/points.ts";
import { renderIncomplete } from "../../render/status.ts";
import { backUpMsgvault } from "./create-from-msgvault.ts";
import { given, COMPRESSION, REPOSITORY_OPTIONS, whileOpening, withRepository } from "./repository.ts";
import { CreateBackupOptions, StreamBackupOptions } from "../../../contract/snapshots.ts";
import { omit, pick } from "../../../contract/schema.ts";
import { FROM_MSGVAULT, VerbOptions } from "../../options.ts";

const FIRST = new VerbOptions(
  omit(
    CreateBackupOptions,
    "cause",
    "kept",
    "point",
    "save",
    "tags",
    "hostname",
    "skipIfUnchanged",
    "jobs",
    "dryRun",
    "probe",
  ),
);
const OPTIONS = new VerbOptions(
  pick(CreateBackupOptions, "save", "tags", "hostname", "skipIfUnchanged", "jobs", "dryRun", "probe"),
);
const STREAM = new VerbOptions(StreamBackupOptions.entries);

export const command: CommandDefinition = {
  name: "backup create",
  harmless: true,
  arguments: [
    {
      name: "[words...]",
      text: "a folder, which is saved first (default: the current folder), or a save point",
      completes: "points",
    },
  ],
  options: [
    ...REPOSITORY_OPTIONS,
    ...COMPRESSION,
    ...savingOptions(FIRST.definitions),
    ...OPTIONS.definitions,
    {
      flags: "--files-from <file>",
      text: "file with folders and files to back up, one path or restic pattern a line (-: stdin); may be repeated",
      repeat: true,
    },
    FROM_MSGVAULT,
  ],
  examples: [
    { line: "cairn backup create -r /srv/backups", text: "save the current folder, and back that point up" },
    { line: "cairn backup create -r /srv/backups ~/project", text: "save another folder, and back it up" },
    {
      line: "cairn backup create -r /srv/backups head~3 -t before-release",
      text: "back up an older point, with a tag",
    },
    {
      line: "cairn backup create -r /srv/backups /etc /home/ann/papers",
      text: "back up several folders as one snapshot, without a save point",
    },
  ],
  async run(context, input) {
    if (input.text("fromMsgvault") !== undefined) {
      const isAlone = Object.keys(readSaving(context, input)).length === 0 && !input.denied("save");
      return backUpMsgvault(context, input, { ...ofSnapshot(context, input), isAlone });
    }
    const [word, extra] = input.rest(0);
    if (extra !== undefined || input.list("filesFrom").length > 0) return runPaths(context, input);
    const folder = word === undefined ? undefined : await folderOf(context, word);
    const point = folder === undefined ? word : undefined;
    const isSaved = point === undefined && !input.denied("save");
    const saving = readSaving(context, input);
    const [name] = Object.keys(saving);
    if (name !== undefined && !isSaved)
      throw usage(
        `${FIRST.optionOf(name)} is an option of the save before the backup: it works neither with POINT nor with --no-save`,
      );
    const options: CreateBackupOptions = { ...ofSnapshot(context, input), ...saving };
    if (point !== undefined) options.point = point;
    const kept = isSaved && options.dryRun !== true ? null : await context.open(folder);
    const backUp = async (repository: Promise<BackupRepository>, isKept: boolean): Promise<CreateBackupResult> => {
      // A new workspace cuts large files as the repository does, unless this user has a workspace already.
      const client = kept ?? (await context.openOrInit(folder, saving.allow, { before: repository }));
      return client.createBackup(repository, isKept ? { ...options, kept: true } : options);
    };
    return whileOpening(
      context,
      input,
      async (repository, isKept) => {
        const result = await backUp(repository, isKept).catch((error: unknown) => {
          throw leadingOn(context, error, point);
        });
        return {
          data: result,
          exitStatus:
            result.incomplete === null && !hasFailed(result.hooks) && unprovenBy(result).length === 0 ? 0 : EXIT_PARTLY,
          text: () => [render(context, result), ...renderLacking(context, result)].join("\n"),
        };
      },
      { folder, saves: kept === null },
    );
  },
};

export const stream: CommandDefinition = {
  name: "backup stream",
  harmless: true,
  arguments: [{ name: "[command...]", text: "a command and its arguments, after --; default: stdin" }],
  options: [...REPOSITORY_OPTIONS, ...COMPRESSION, ...STREAM.definitions],
  examples: [
    {
      line: "cairn backup stream -r /srv/backups --name db.sql -- pg_dump shop",
      text: "a database dump without a temporary file; no snapshot if the command fails",
    },
    { line: "tar c /etc | cairn backup stream -r /srv/backups --name etc.tar", text: "stdin" },
  ],
  async run(context, input) {
    const words = input.rest(0);
    if (words.length === 0 && process.stdin.isTTY)
      throw usage("stdin is a terminal: give a pipe or a file, or a command after --");
    const options: StreamBackupOptions = named(context, STREAM.read(context, input));
    return withRepository(context, input, async (repository) => {
      const result =
        words.length === 0
          ? await repository.createFromStream(openStdin(), options)
          : await repository.createFromCommand(words, { ...options, cwd: context.cwd });
      return { data: result, text: () => render(context, result) };
    });
  },
};

/**
 * Returns the folder that a word means; undefined for a point. A word with a slash is a path; a word that cannot be a
 * point's name is a folder.
 */
async function folderOf(context: Context, word: string): Promise<string | undefined> {
  const isPath = word.includes("/") || word === "." || word === "..";
  if (!isPath && /^(?:latest|head(?:~\d*)?)$/i.test(word)) return undefined;
  if (/^[0-9a-f]{1,32}$/i.test(word)) return (await isFolder(context, word)) ? word : undefined;
  const found = lookAt(context, word);
  if (found !== undefined && !found.isDirectory()) throw noFolder(word);
  if (isPath || found !== undefined) return word;
  throw new CairnError(
    "not_found",
    `neither a save point nor a folder has the name ${JSON.stringify(word.slice(0, 80))}`,
    {
      hint: `\`${context.commandLine(["history"])}\` lists the points`,
    },
  );
}

/** True if hexadecimal digits name a folder here, and no point. Throws `ambiguous` if they name both. */
async function isFolder(context: Context, digits: string): Promise<boolean> {
  // With -C the folder is named, so the word is a point in it. 32 digits are always a point.
  if (context.globals.directory !== undefined || digits.length === 32) return false;
  if (lookAt(context, digits)?.isDirectory() !== true) return false;
  const asFolder = `the folder is ./${digits}`;
  let id: string;
  try {
    const client = await context.open();
    id = (await client.resolve(digits, context.callOptions())).save_point_id;
  } catch (error) {
    if (!(error instanceof CairnError)) throw error;
    if (error.code === "not_found" || error.code === "not_a_workspace") return true;
    throw error.code === "ambiguous" ? reworded(error, { hint: `use more digits; ${asFolder}` }) : error;
  }
  throw new CairnError(
    "ambiguous",
    `${digits} is ambiguous: it is a folder, and also the beginning of a save point's id`,
    {
      hint: `${asFolder}, the point ${id}`,
      details: { candidates: [id] },
    },
  );
}

/** Reads the options that only a save takes; without those that were not given. */
function readSaving(context: Context, input: Input): Partial<CreateBackupOptions> {
  const given = FIRST.read(context, input);
  const exclude = readExcludes(context, input);
  return exclude.length === 0 ? given : { ...given, exclude };
}

/** Undefined also if this user may not read the path. */
function lookAt(context: Context, word: string): Stats | undefined {
  try {
    return statSync(context.absolute(word), { throwIfNoEntry: false });
  } catch (error) {
    if (error instanceof CairnError) throw error;
    return undefined;
  }
}

function noFolder(word: string): CairnError {
  const line = `cairn backup stream --name ${shellQuote(basename(word))} < ${shellQuote(word)}`;
  return new CairnError("refused", `${printable(word)} is not a folder`, {
    hint: `name the folder that contains it, or back it up alone as a stream: ${line}`,
  });
}

/** Adds the next command to an error of a guard, or of a missing point that is a folder's name. */
function leadingOn(context: Context, error: unknown, point: string | undefined): unknown {
  if (!(error instanceof CairnError)) return error;
  if (error.code === "refused" && error.details?.["guard"] === "nested")
    return reworded(error, {
      hint: "back up that workspace instead: single paths can be restored from its backups; --allow nested makes both workspaces",
    });
  if (error.code === "not_found" && point !== undefined && lookAt(context, point)?.isDirectory() === true)
    return reworded(error, { hint: `\`cairn history\` lists the points; the folder is ./${point}` });
  return error;
}

/** Reads the options of a snapshot that a point and several folders share. */
function ofSnapshot(context: Context, input: Input): Pick<CreateBackupOptions, keyof ReturnType<typeof OPTIONS.read>> {
  return named(context, OPTIONS.read(context, input));
}

/** Returns the options of a snapshot with the host name of the environment, and with its tags split. */
function named<T extends StreamBackupOptions>(context: Context, { tags = [], ...options }: T) {
  const [hostname] = given(context.env, options.hostname, "HOST");
  return {
    ...context.callOptions(),
    ...options,
    ...(hostname === undefined ? {} : { hostname }),
    tags: tags.flatMap(splitTags),
  };
}

/** Backs up several folders and files without a save point. */
async function runPaths(context: Context, input: Input): Promise<Outcome> {
  const { message, allow, exclude, reread, crossMounts, databases, hooks, ...others } = readSaving(context, input);
  const [other] = Object.entries({ message, allow, ...others }).find(([, value]) => value !== undefined) ?? [];
  const { probe, ...given } = ofSnapshot(context, input);
  if (probe !== undefined) throw usage("--probe works with one folder only");
  if (other !== undefined || input.denied("save") || given.dryRun === true)
    throw usage(
      `${other === undefined ? (given.dryRun === true ? "--plan" : "--no-save") : FIRST.optionOf(other)} works with one folder only: several folders are backed up without a save point`,
    );
  const listed = await Promise.all(input.list("filesFrom").map(async (file) => pathsFrom(context, file)));
  const paths = [...input.rest(0).map((word) => context.absolute(word)), ...listed.flat()];
  if (paths.length === 0) throw usage("--files-from names no existing folder or file");
  const { dryRun: _dryRun, ...options } = { ...given, exclude, reread, crossMounts, databases, hooks };
  return withRepository(context, input, async (repository) => {
    const result = await repository.createFromPaths(paths, options);
    return {
      data: result,
      exitStatus: result.incomplete === null && !hasFailed(result.hooks) ? 0 : EXIT_PARTLY,
      text: () => [render(context, result), ...renderLacking(context, result)].join("\n"),
    };
  });
}

/** Opens stdin. Node cannot stream folders and block devices: its stdin ends at once, as if they were empty. */
function openStdin(): AsyncIterable<Uint8Array> {
  const kind = fstatSync(0);
  if (!kind.isDirectory() && !kind.isBlockDevice()) return process.stdin;
  return createReadStream("", { fd: 0, autoClose: false });
}

/** Lists entries that the point lacks, whether this save or an earlier one left them out. */
function renderLacking(
  { style }: Context,
  { incomplete, left_out: leftOut }: Pick<CreateBackupResult, "incomplete" | "left_out">,
): string[] {
  const others =
    incomplete === null ? leftOut : leftOut.filter(({ reason }) => reason === "mounted" || reason === "excluded");
  return [...renderIncomplete(incomplete, style), ...renderLeftOut(others, style)];
}

function namesOf(paths: readonly string[]): string {
  const more = paths.length > 3 ? ` and ${paths.length - 3} more` : "";
  return `${paths.slice(0, 3).map(printable).join(", ")}${more}`;
}

function probeLine({ command, output, failure }: CreateBackupResult["probes"][number]): string {
  const [first = "", ...more] = output.trimEnd().split("\n");
  const answer = `${printable(first.slice(0, 80))}${more.length > 0 || first.length > 80 ? " …" : ""}`;
  return `  probe ${printable(command)}: ${failure === null ? answer : printable(failure)}`;
}

function render(context: Context, result: CreateBackupResult | PathsBackupResult | StreamBackupResult): string {
  const { style } = context;
  const { added, snapshot } = result;
  const blobs = plural(added.data_blobs + added.tree_blobs, "blob");
  const size = `${blobs}, ${formatBytes(added.bytes)}${added.packs === 0 ? "" : ` in ${formatBytes(added.stored_bytes)}`}`;
  if (result.dry_run) return `would transfer ${size}; nothing was written`;
  const what =
    result.save_point_id === null ? namesOf(snapshot?.paths ?? []) : `point ${result.save_point_id.slice(0, 8)}`;
  if (snapshot === null) return `unchanged since snapshot ${result.parent?.slice(0, 8) ?? ""}: no snapshot was made`;
  return [
    `${style.green("snapshot")} ${style.bold(snapshot.snapshot_id.slice(0, 8))} of ${what} in ${printable(result.location)}`,
    `  ${added.packs === 0 ? "the repository had everything already" : `added ${size}`}, ${formatDuration(result.duration_ms)}`,
    ...("probes" in result ? result.probes.map(probeLine) : []),
    ...("labels" in result ? result.labels.flatMap(labelLine) : []),
  ].join("\n");
}

/** Explains the consistency of a stored database, if there is something to report. */
function labelLine({ path, label, reason }: PathsBackupResult["labels"][number]): string[] {
  return reason === undefined ? [] : [`  ${printable(path)} is ${label}: ${printable(reason)}`];
}
