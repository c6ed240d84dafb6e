import { existsSync, realpathSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { CairnError } from "../../../errors.ts";
import { printable, shellQuote } from "../../render/format.ts";
import type { Client, PathInput } from "../../../contract/index.ts";
import { isAtOrBelow } from "../../../fs/paths/safe-path.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { type Input, parseBase64, usage } from "../../input.ts";
import { changeOptions, planOutcome, restoreOutcome } from "../../restore-outcome.ts";
import { isPoint, PATH_B64, splitSibling } from "../../shown.ts";
import { BACKUP_OPTIONS, backupIn, operandOf, orFolderHint, orPathsHint, requireNoRepository } from "../../operands.ts";
import { tellingOfHooks } from "../agent/lost-hooks.ts";
import { RestoreOptions } from "../../../contract/points.ts";
import { splitWord } from "../../../contract/operand.ts";
import { omit } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(omit(RestoreOptions, "target", "paths", "cause"));

/** Options that only a restore in place has. */
const IN_PLACE = /^--(?:keep-present|through-sqlite)\b/;

export const command: CommandDefinition = {
  name: "restore",
  arguments: [
    {
      name: "[target]",
      text: 'a save point: id, prefix, latest, head, head~N, or a time such as "2 hours ago", also of another workspace (NAME:POINT); or backup:SNAPSHOT; with --to also a folder of them: POINT:PATH; without one, on a terminal, Cairn asks which',
      completes: "points",
    },
    {
      name: "[path...]",
      text: "restore only these paths, relative to the current folder, or to the PATH of the target",
      completes: "files",
    },
  ],
  options: [
    ...changeOptions(OPTIONS.definitions).map((option) =>
      IN_PLACE.test(option.flags) ? { ...option, excludes: ["--to"] } : option,
    ),
    {
      ...PATH_B64,
      text: "a path from the workspace's root whose name is not UTF-8; may be repeated",
      repeat: true,
    },
    ...BACKUP_OPTIONS,
  ],
  examples: [
    { line: "cairn restore", text: "choose a save point and files, see what would change, and confirm" },
    { line: "cairn restore head", text: "discard all changes since the last save; `cairn undo` brings them back" },
    { line: "cairn restore 1a2b3c4d src/main.ts", text: "one file" },
    { line: "cairn restore head~3 --plan", text: "print what would change" },
    { line: "cairn restore latest --to /tmp/look", text: "a copy of a save point elsewhere" },
    { line: "cairn restore head~3:src --to /tmp/src", text: "the content of one folder elsewhere" },
    { line: "cairn restore backup:latest:src --to /tmp/src", text: "one folder of the last backup elsewhere" },
    { line: "cairn restore backup:latest src/main.ts", text: "one file from the last backup" },
  ],
  async run(context, input) {
    const { to, ...given } = OPTIONS.read(context, input);
    if (input.text("to") === "") throw usage("--to needs a folder");
    const ofCopies = given.allow?.find((guard) => guard !== "unmounted");
    if (ofCopies !== undefined && to === undefined) throw usage(`--allow ${ofCopies} works with --to only`);
    const isAsked = input.argument(0) === undefined;
    if (isAsked) requireTerminal(context, to);
    const target = isAsked ? "" : input.required(0);
    const client = await context.open().catch(async (error: unknown) => {
      throw await orFolderHint(context, error, [target, ...input.rest(1)]);
    });
    const backup = backupIn(context, client, target);
    if (backup !== null) return restoredBackup(context, client, { input, backup });
    requireNoRepository(input);
    const isPlanOnly = input.flag("plan");
    if (to !== undefined && (isPlanOnly || given.plan !== undefined))
      throw usage("--plan and --apply of a save point do not work with --to: the folder must be absent or empty");
    const operand = operandOf(context, client, target);
    const [point, below] = await splitSibling(client, splitWord(operand));
    if (typeof below === "string" && to === undefined && (await isPoint(client, point)))
      throw isNoFolder(context, client, [point, below]);
    const paths = pathsIn(context, client, { input, isBelow: below !== undefined });
    let options: RestoreOptions = { ...context.callOptions(), ...given, target: operand };
    if (to !== undefined) options = { ...options, to };
    if (paths.length > 0) options.paths = paths;
    if (isAsked) {
      const { chooseRestore } = await import("../../choose-restore.ts");
      const chosen = await chooseRestore(context, client, { options, isPlanOnly });
      if (chosen.isWanted === false) return { data: { plan: chosen.plan }, text: () => "nothing was changed" };
      if (chosen.isWanted === null) return planOutcome(context, client, chosen.plan);
      options = chosen.options;
    }
    const orPaths = async (error: unknown): Promise<never> => {
      const lineOf = (of: string, files: readonly string[]): string[] => ["restore", of, ...files];
      throw await orPathsHint(context, client, error, { words: [target, ...input.rest(1)], lineOf });
    };
    if (isPlanOnly && !isAsked) return planOutcome(context, client, await client.planRestore(options).catch(orPaths));
    return restoreOutcome(context, client, {
      result: await tellingOfHooks(context, client, async () => client.restore(options)).catch(orPaths),
      method: options.method,
      ...(to === undefined ? {} : { to }),
    });
  },
};

const OF_POINTS = ["method", "keepGit", "allow"] as const;

/** Restores a backup of this folder as `backup restore` does. */
async function restoredBackup(
  context: Context,
  client: Client,
  { input, backup }: { input: Input; backup: NonNullable<ReturnType<typeof backupIn>> },
): Promise<Outcome> {
  const { to, ...given } = OPTIONS.read(context, input);
  const { snapshot, path, filter } = backup;
  for (const name of OF_POINTS)
    if (given[name] !== undefined) throw usage(`${OPTIONS.optionOf(name)} works with save points only`);
  if (to !== undefined) requireOutside(client.workspacePath(), to);
  if (path !== "" && to === undefined) throw isNoFolder(context, client, [`backup:${snapshot}`, path]);
  const { restoreSnapshot } = await import("../backup/restore.ts");
  return restoreSnapshot(context, input, {
    snapshot,
    subfolder: path === "" ? undefined : path,
    paths: pathsIn(context, client, { input, isBelow: path !== "" }),
    // In place `latest` is that of the workspace without a filter, which would show that another folder's is wanted.
    latestOf: to === undefined ? {} : filter,
    beginsAt: client.workspacePath(),
  });
}

/** Throws `refused` for a new folder in the workspace, which the next save would include. */
function requireOutside(workspace: string, to: string): void {
  let there = to;
  while (!existsSync(there)) there = dirname(there);
  const place = join(realpathSync.native(there), relative(there, to));
  if (!isAtOrBelow(place, workspace)) return;
  throw new CairnError("refused", `${printable(place)} lies inside the workspace`, {
    hint: "name a place outside the workspace, or restore without --to, into the workspace's folder itself",
  });
}

/** Returns the chosen paths, from the workspace's root or, if the operand has a path, from there. Empty: everything. */
function pathsIn(
  context: Context,
  client: Client,
  { input, isBelow }: { input: Input; isBelow: boolean },
): PathInput[] {
  const [words, encoded] = [input.rest(1), input.list("pathB64")];
  if (isBelow) return [...words, ...encoded.map((text) => parseBase64(text, "--path-b64"))];
  const paths = context.workspacePaths(client, words, encoded);
  return paths.includes("") ? [] : paths;
}

/** The error for a path of a state that is to be restored in place. */
function isNoFolder(context: Context, client: Client, [state, path]: readonly [string, string]): CairnError {
  const fromHere = relative(context.cwd, join(client.workspacePath(), path)) || ".";
  return usage(
    `${state}:${printable(path)} is restored elsewhere only, with --to DIR`,
    `in place, name the path as an argument: cairn restore ${shellQuote(state)} ${shellQuote(fromHere)}`,
  );
}

/** Throws `usage` for a missing argument if questions are impossible, or if they do not fit the line. */
function requireTerminal({ globals, env }: Context, to: string | undefined): void {
  const canAsk = process.stdin.isTTY && process.stdout.isTTY && !globals.json && env["TERM"] !== "dumb";
  if (!canAsk || to !== undefined)
    throw usage("missing required argument 'target'", "`cairn restore --help` shows its options");
}
