import type { Client, DiffEntry, DiffResult, LookOptions, PathInput } from "../../../contract/index.ts";
import { DiffOptions } from "../../../contract/looking.ts";
import { isBackupOperand } from "../../../contract/operand.ts";
import { pick } from "../../../contract/schema.ts";
import { shellPath } from "../../../fs/paths/safe-path.ts";
import { DiffDatabaseOptions } from "../../../verbs/schemas.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { only } from "../../definitions.ts";
import type { Input } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { inLocale } from "../../render/style.ts";
import { isPoint, PATH_B64 } from "../../shown.ts";
import { BACKUP_OPTIONS, forkWord, operandOf, orPathsHint } from "../../operands.ts";
import { looked } from "./with-backups.ts";

const PATHS = new VerbOptions(pick(DiffOptions, "paths"));
const ROWS = new VerbOptions(pick(DiffDatabaseOptions, "limit"));

export const command: CommandDefinition = {
  name: "diff",
  answers: true,
  arguments: [
    {
      name: "[a]",
      text: "a state: POINT[:PATH], NAME:POINT[:PATH], backup:SNAPSHOT[:PATH], a folder (/…, ./…, ~/…), or . for the folder now; a fork alone: its newest point is compared with head; default: head",
      completes: "points",
    },
    { name: "[b]", text: "another state; default: the current folder", completes: "points" },
  ],
  options: [
    ...BACKUP_OPTIONS,
    { flags: "--stat", text: "list the entries that differ, without their text" },
    ...PATHS.definitions,
    {
      flags: "--sql <database>",
      text: "compare the tables and rows of a SQLite database, even while it is in use",
    },
    ...only({ needs: "--sql" }, ROWS.definitions),
    { ...PATH_B64, text: "like --path, for a name that is not UTF-8; may be repeated", repeat: true },
  ],
  examples: [
    { line: "cairn diff", text: "what changed since the last save point" },
    { line: "cairn diff head~1 head --stat", text: "between the point before head and head" },
    { line: "cairn diff latest backup:latest", text: "what the last backup lacks" },
    { line: "cairn diff head~5:src backup:latest:src", text: "one folder of a point and of a backup" },
    { line: "cairn diff --sql app.db head~1", text: "the rows of a database that changed since head~1" },
    { line: "cairn diff 1a2b3c4d --path src", text: "one folder, compared with the current state" },
  ],
  async run(context, input) {
    const client = await context.open();
    const fork = await forkIn(context, client, input);
    const given = [input.argument(0) ?? "head", input.argument(1) ?? null] as const;
    const operands = given.map((each) => (each === null ? null : operandOf(context, client, each)));
    const [from, to] = fork === null ? [operands[0]!, operands[1]!] : ["head", fork];
    const database = input.text("sql");
    const rows = ROWS.read(context, input);
    const paths = context.workspacePaths(client, input.list("path"), input.list("pathB64"));
    const isFar = operands.some((each) => each !== null && isBackupOperand(each));
    return looked(context, input, isFar, async (look) => {
      if (database !== undefined) {
        const [path] = context.workspacePaths(client, [database], []);
        const found = await client.diffDatabase(path!, from, to, { ...look, ...rows });
        const { renderDatabaseDiff } = await import("../../render/database.ts");
        return { data: found, paged: true, text: () => renderDatabaseDiff(found, context.style) };
      }
      const isChosen = paths.length > 0 && !paths.includes("");
      const result = await client.diff(from, to, isChosen ? { ...look, paths } : look).catch(async (error: unknown) => {
        const lineOf = (of: string, files: readonly string[]): string[] => [
          "diff",
          of,
          ...files.flatMap((file) => ["--path", file]),
        ];
        const words = given.filter((each) => each !== null);
        throw await orPathsHint(context, client, error, { words, lineOf });
      });
      const text = async (): Promise<string> =>
        renderDiff(context, client, { result, look, isStat: input.flag("stat") });
      return { data: result, paged: true, verbatim: true, text };
    });
  },
};

/**
 * Returns the newest point of the fork that is the only argument; null if the argument is a point of this workspace.
 */
async function forkIn(context: Context, client: Client, input: Input): Promise<string | null> {
  const word = input.argument(0);
  if (word === undefined || input.argument(1) !== undefined) return null;
  const fork = forkWord(context, word);
  const newest = `${fork}:latest`;
  if ((await isPoint(client, word)) || !(await isPoint(client, newest))) return null;
  await warnOfUnsaved(context, client, fork);
  return newest;
}

/** Warns if the folder of a fork, named by its path or its name, differs from the fork's newest point. */
async function warnOfUnsaved(context: Context, client: Client, fork: string): Promise<void> {
  const library = await context.library();
  const found = (await library.listWorkspaces(context.callOptions())).find(
    ({ name, path, control_directory: control }) =>
      path === fork || (name === fork && control === client.controlDirectory),
  );
  if (found === undefined) return;
  await using other = await library.open(found.path, context.callOptions());
  if (!(await other.status(context.callOptions())).clean)
    context.note(
      `the fork has changed since its newest point, and the changes are not compared; to compare them: cairn save ${shellPath(found.path)}`,
      true,
    );
}

// Limits of a readable diff; for more, name a path or use --json.
const TEXT_DIFF_LIMIT = 500;
const TEXT_SIZE_LIMIT = 1024 * 1024;

async function renderDiff(
  context: Context,
  client: Client,
  view: { result: DiffResult; look: LookOptions; isStat: boolean },
): Promise<string> {
  const { renderEntryLine, renderSummary, renderTextDiff } = await import("../../render/diff.ts");
  const { result, look } = view;
  const shown = inLocale(context.env);
  const lines: string[] = [];
  let compared = 0;
  for (const entry of result.entries) {
    lines.push(shown(renderEntryLine(entry, context.style)));
    if (view.isStat || !isWorthReading(entry) || compared >= TEXT_DIFF_LIMIT) continue;
    compared++;
    const before = entry.change === "added" ? null : await readWhole(client, [result.from, pathBefore(entry)], look);
    const after = entry.change === "removed" ? null : await readWhole(client, [result.to, pathAfter(entry)], look);
    const text = renderTextDiff({ entry, before, after }, context.style);
    if (text !== null) lines.push(text, "");
  }
  if (compared >= TEXT_DIFF_LIMIT)
    lines.push(shown(`… texts of the first ${TEXT_DIFF_LIMIT} files are shown; --path shows others`));
  return [...lines, renderSummary(result.entries)].join("\n");
}

function isWorthReading(entry: DiffEntry): boolean {
  if (entry.kind !== "file" || entry.change === "renamed" || entry.change === "not_kept") return false;
  if (entry.change === "modified" && (!entry.aspects.includes("content") || entry.aspects.includes("type")))
    return false;
  return (entry.size_before ?? 0) <= TEXT_SIZE_LIMIT && (entry.size_after ?? 0) <= TEXT_SIZE_LIMIT;
}

function pathBefore(entry: DiffEntry): PathInput {
  const encoded = entry.from_path === undefined ? entry.path_b64 : entry.from_path_b64;
  return encoded === undefined ? (entry.from_path ?? entry.path) : Buffer.from(encoded, "base64");
}

function pathAfter(entry: DiffEntry): PathInput {
  return entry.path_b64 === undefined ? entry.path : Buffer.from(entry.path_b64, "base64");
}

async function readWhole(
  client: Client,
  [target, path]: readonly [string | null, PathInput],
  look: LookOptions,
): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of client.read(target, path, look)) pieces.push(piece);
  return Buffer.concat(pieces);
}
