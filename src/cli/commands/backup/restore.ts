import { existsSync, realpathSync } from "node:fs";
import { CairnError, reworded } from "../../../errors.ts";
import { shellPath } from "../../../fs/paths/safe-path.ts";
import type {
  BackupRepository,
  Client,
  PathPattern,
  RestoreBackupResult,
  RestoredSnapshot,
  RestoreInPlaceResult,
} from "../../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { EXIT_PARTLY } from "../../envelope.ts";
import type { Input } from "../../input.ts";
import { parseBase64, usage } from "../../input.ts";
import { formatBytes, formatCounts, formatDuration, formatInstant, plural, printable } from "../../render/format.ts";
import { restoreOutcome } from "../../restore-outcome.ts";
import { splitSnapshot } from "../../shown.ts";
import { FILTER_OPTIONS, readFilter } from "./list.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";
import { RestoreBackupOptions } from "../../../contract/snapshots.ts";
import { pick } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(
  pick(RestoreBackupOptions, "proveFrom", "receipt", "jobs", "sparse", "overwrite", "dryRun"),
  {
    proveFrom: {
      flags: "--prove-from <where>",
      text: "as --prove, from disk, the default, or memory: faster, and says nothing of the disk",
    },
    receipt: "--receipt <file>",
    jobs: "--jobs <n>",
    overwrite: {
      flags: "--overwrite <when>",
      text: "--to a folder that is not empty, too: entries that are there stay (never), are replaced where size, times, mode or target differ (if-changed), or always; nothing else in it is touched",
    },
    dryRun: { text: "only say how much would be written, in place what would change" },
  },
);

export const command: CommandDefinition = {
  name: "backup restore",
  arguments: [
    {
      name: "<snapshot[:folder]>",
      text: "a snapshot: id, prefix, latest, or a save point's id; and only what is below a folder in it, without its path",
    },
    { name: "[path...]", text: "only these, from the root of what was saved, or from that folder" },
  ],
  options: [
    ...REPOSITORY_OPTIONS,
    ...FILTER_OPTIONS.map((option) => ({ ...option, text: `latest: ${option.text}` })),
    { flags: "--to <dir>", text: "the folder to write into: absent or empty, unless --overwrite is given" },
    { flags: "--in-place", text: "make the workspace's folder equal to it, saved first; `cairn undo` takes it back" },
    { flags: "--keep-present", text: "in place: let entries stay that the snapshot does not have" },
    { flags: "--no-prove", text: "do not read again what was written" },
    { flags: "--prove", text: "read it again where only parts are written, too" },
    {
      flags: "--include <pattern>",
      text: "what fits it (a name, the end of a path, a whole one), and what is under that; may be repeated",
      repeat: true,
    },
    { flags: "--exclude <pattern>", text: "not what fits it, nor what is under that; may be repeated", repeat: true },
    { flags: "--iinclude <pattern>", text: "as --include, upper and lower case being equal", repeat: true },
    { flags: "--iexclude <pattern>", text: "as --exclude, upper and lower case being equal", repeat: true },
    { flags: "--path-b64 <base64>", text: "a path whose name is not UTF-8; may be repeated", repeat: true },
    ...OPTIONS.definitions,
  ],
  examples: [
    { line: "cairn backup restore latest --to /srv/back -r /srv/backups", text: "all of the newest snapshot, proven" },
    {
      line: "cairn backup restore latest --in-place -r /srv/backups",
      text: "the folder as it was backed up last from where it lies",
    },
    {
      line: "cairn backup restore 1a2b3c4d src --to /tmp/here -r /srv/backups",
      text: "one folder of it: /tmp/here/src",
    },
    { line: "cairn backup restore 1a2b3c4d:src --to /tmp/src -r /srv/backups", text: "what is in one folder of it" },
    {
      line: "cairn backup restore latest --to /tmp/docs --include '*.md' --exclude drafts -r /srv/backups",
      text: "patterns of names, and of paths where they have a slash",
    },
  ],
  async run(context, input) {
    const to = input.text("to");
    const isInPlace = input.flag("inPlace");
    if (isInPlace && to !== undefined) throw usage("--to DIR and --in-place exclude each other");
    if (!isInPlace && (to ?? "") === "")
      throw usage("backup restore wants a folder to write into: --to DIR, or --in-place");
    if (isInPlace && input.text("overwrite") !== undefined)
      throw usage("--overwrite goes with --to DIR", "in place what differs is replaced; --keep-present keeps the rest");
    if (input.flag("keepPresent") && !isInPlace) throw usage("--keep-present works with --in-place only");
    const [snapshot, subfolder] = splitSnapshot(input.required(0));
    const paths = [...input.rest(1), ...input.list("pathB64").map((text) => parseBase64(text, "--path-b64"))];
    const options: RestoreBackupOptions = {
      ...context.callOptions(),
      ...patternsOf(input),
      ...OPTIONS.read(context, input),
    };
    if (subfolder !== undefined) options.subfolder = subfolder;
    if (paths.length > 0) options.paths = paths;
    const latestOf = readFilter(context, input);
    if (Object.values(latestOf).some((names) => names.length > 0)) options.latestOf = latestOf;
    if (input.denied("prove")) options.prove = false;
    else if (input.flag("prove")) options.prove = true;
    if (to === undefined) return inPlace(context, input, { snapshot, options });
    const restore = async (repository: BackupRepository): Promise<Outcome> => {
      const result = await repository.restore(snapshot, context.place(to), options);
      return {
        data: result,
        exitStatus: result.left_out.length === 0 ? 0 : EXIT_PARTLY,
        text: async () => {
          const { renderLeftOut } = await import("../../render/points.ts");
          return [...render(context, result), ...renderLeftOut(result.left_out, context.style)].join("\n");
        },
      };
    };
    return withRepository(context, input, restore, options.dryRun === true ? undefined : "restore");
  },
};

async function inPlace(
  context: Context,
  input: Input,
  { snapshot, options }: { snapshot: string; options: RestoreBackupOptions },
): Promise<Outcome> {
  return withRepository(context, input, async (repository) => {
    const client = await openedInPlace(context, { repository, snapshot, options });
    const keepPresent = input.flag("keepPresent");
    const result = await withoutAdoption(context, client, async () =>
      client.restoreBackup(repository, snapshot, { ...options, keepPresent }),
    );
    const outcome = restoreOutcome(context, client, { result });
    const about = result.dry_run ? renderPlanned(result) : [`  ${nameOf(result)}`, ...renderProof(context, result)];
    return {
      ...outcome,
      async text() {
        if (!result.dry_run) return [await outcome.text?.(), ...about].join("\n");
        const { renderLeftOut } = await import("../../render/points.ts");
        return [...about, ...renderLeftOut(result.left_out, context.style)].join("\n");
      },
    };
  });
}

/** Gives up a folder that was adopted for a restore which failed before anything was saved. */
async function withoutAdoption<T>(context: Context, client: Client, restore: () => Promise<T>): Promise<T> {
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
 * The folder's workspace. One that was never saved is adopted for a snapshot that is there, and for no dry run. On a new
 * machine the folder is not there yet, and nothing can be saved there.
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
      throw reworded(error, { hint: `make it first (mkdir -p ${named}), or restore with --to ${named} instead` });
    const latestOf = options.latestOf ?? { paths: [realpathSync.native(folder)] };
    await repository.list({ ...context.callOptions(), ...latestOf, snapshots: [snapshot] });
    if (options.dryRun !== true) return adopted(context, named);
    throw reworded(error, {
      hint: "a dry run adopts no folder; without it what lies there is saved first, and `cairn undo` brings that back",
    });
  }
}

/** A home on a new machine is what comes back most, and a guard is about it: what overrides that is a command of its own. */
async function adopted(context: Context, named: string): Promise<Client> {
  try {
    return await context.openOrAdopt();
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "refused") throw error;
    const guard = error.details?.["guard"];
    if (typeof guard !== "string") throw error;
    throw reworded(error, {
      hint: `where it is meant: cairn init ${named} --allow ${guard}, and this once more; or restore with --to into a folder of its own`,
    });
  }
}

function renderPlanned(result: RestoreInPlaceResult): string[] {
  const { changes, target } = result;
  return [`would change ${printable(target)}: ${formatCounts(changes ?? {})}`, `  ${nameOf(result)}`];
}

/** Names the snapshot: `latest` may be of another machine. */
function nameOf({ snapshot_id: id, hostname, created_at: at }: RestoredSnapshot): string {
  return `snapshot ${id.slice(0, 8)} of ${printable(hostname)}, ${formatInstant(at)}`;
}

function patternsOf(input: Input): Pick<RestoreBackupOptions, "include" | "exclude"> {
  const folded = (name: string): PathPattern[] => input.list(name).map((pattern) => ({ pattern, ignoreCase: true }));
  const include = [...input.list("include"), ...folded("iinclude")];
  const exclude = [...input.list("exclude"), ...folded("iexclude")];
  return { exclude, ...(include.length === 0 ? {} : { include }) };
}

function render({ style }: Context, result: RestoreBackupResult): string[] {
  const { overwritten } = result;
  const over =
    overwritten === null ? [] : [`  ${formatCounts({ ...overwritten })}; nothing else in the folder was touched`];
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
    lines.push(`  ${formatBytes(result.kept_bytes)} of it had been written before, by a restore that was killed`);
  return [...lines, ...over, ...renderProof({ style }, result)];
}

function renderProof(
  { style }: Pick<Context, "style">,
  result: Pick<RestoreBackupResult, "proof" | "read_from" | "untold_files" | "left_out">,
): string[] {
  const { proof, untold_files: untold, left_out: leftOut } = result;
  const from = result.read_from === "memory" ? " (out of memory where the system held it)" : "";
  if (proof === null && untold === null) return [style.dim("  what was written was not read again; --prove does that")];
  if (proof === null) {
    const told = leftOut.length === 0 ? "every entry" : "every entry that is not listed";
    const but = untold === 0 ? "" : `; of ${plural(untold!, "file")} nothing tells`;
    return [`  read again${from}: ${told} is what the snapshot has${but}`];
  }
  const lines = [`  read again${from} and found equal: state digest ${proof.state_digest.slice(0, 12)}`];
  if (!proof.metadata_equal) lines.push(style.dim("  owners, times or attributes are not all as they were"));
  if (proof.receipt !== null) lines.push(`  receipt: ${printable(proof.receipt)}`);
  return lines;
}
