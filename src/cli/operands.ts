import { existsSync } from "node:fs";
import { dirname, relative } from "node:path";
import type { Client } from "../contract/index.ts";
import { isBackupOperand, isFolderOperand, NOW, readOperand } from "../contract/operand.ts";
import { KeptRepositoryEdit, RepositoryOptions } from "../contract/repositories.ts";
import { pick } from "../contract/schema.ts";
import { reworded, toCairnError } from "../errors.ts";
import { listedNames } from "../fs/paths/safe-path.ts";
import { type Context, toWorkspacePath } from "./context.ts";
import { type Input, usage } from "./input.ts";
import { VerbOptions } from "./options.ts";
import { shellQuote } from "./render/format.ts";
import { isPoint } from "./shown.ts";

/** Options of commands that take states: the repository of `backup:SNAPSHOT`, by default the one of `backup use`. */
export const BACKUP_OPTIONS = new VerbOptions({
  ...pick(RepositoryOptions, "repository"),
  ...pick(KeptRepositoryEdit, "passwordFile", "passwordCommand", "ageIdentity"),
}).definitions;

/** Throws `usage` if the line names a repository, or how to open it, though no operand is a backup. */
export function requireNoRepository(input: Input): void {
  const given = BACKUP_OPTIONS.find(({ flags }) => input.has(flags));
  if (given !== undefined)
    throw usage(
      `${/--[\w-]+/.exec(given.flags)![0]} works with backup:SNAPSHOT only`,
      "name a backup, for example backup:latest",
    );
}

/** Returns an operand as the library reads it: folders are absolute, and paths begin at the state's root. */
export function operandOf(context: Context, client: Client, text: string): string {
  if (isFolderOperand(text)) return text === NOW || text.startsWith("~") ? text : context.absolute(text);
  const at = text.search(/:\.\.?(?:\/|$)/);
  if (at === -1) return text;
  return `${text.slice(0, at)}:${toWorkspacePath(client.workspacePath(), context.cwd, text.slice(at + 1))}`;
}

/** Returns the snapshot and the path that an operand names, and how to find the newest snapshot; null for no backup. */
export function backupIn(
  context: Context,
  client: Client,
  text: string,
): { snapshot: string; path: string; filter: { paths: string[] } } | null {
  if (!isBackupOperand(text)) return null;
  const [operand] = readOperand(operandOf(context, client, text));
  if (operand?.kind !== "backup") return null;
  return { snapshot: operand.snapshot, path: operand.path, filter: { paths: [client.workspacePath()] } };
}

/** Returns a folder as an absolute path if `word` names one, else the word itself, which is a workspace's name. */
export function forkWord(context: Context, word: string): string {
  const folder = context.absolute(word);
  return existsSync(folder) ? folder : word;
}

/**
 * Returns the error of words that name no save point. If a point has them as paths, the hint is the line that `lineOf`
 * makes of the point and of them. The files need not be on the disk.
 */
export async function orPathsHint(
  context: Context,
  client: Client,
  error: unknown,
  { words, lineOf }: { words: readonly string[]; lineOf: (point: string, paths: readonly string[]) => string[] },
): Promise<unknown> {
  if (toCairnError(error).code !== "invalid_id") return error;
  try {
    const arePoints = await Promise.all(words.map(async (word) => isPoint(client, word)));
    const [point = "head", ...more] = words.filter((_, i) => arePoints[i]);
    const paths = words.filter((_, i) => !arePoints[i]);
    if (more.length > 0) return error;
    for (const path of context.workspacePaths(client, paths, []))
      await client.show(point, path, { ...context.callOptions(), limit: 1 });
    const hint = `${point} has ${listedNames(paths)}: ${context.commandLine(lineOf(point, paths))}`;
    return reworded(toCairnError(error), { hint });
  } catch {
    return error;
  }
}

/** Returns the error of a command outside of every workspace. If words are paths in one, the hint is the line for it. */
export async function orFolderHint(context: Context, error: unknown, words: readonly string[]): Promise<unknown> {
  if (toCairnError(error).code !== "not_a_workspace" || context.globals.directory !== undefined) return error;
  const library = await context.library();
  const folderOf = async (word: string): Promise<string | null> =>
    library.find(dirname(context.absolute(word)), context.callOptions()).catch(() => null);
  const folders = await Promise.all(words.map(folderOf));
  const folder = folders.find((each) => each !== null);
  if (folder === undefined) return error;
  const paths = words.filter((_, i) => folders[i] === folder).map((word) => relative(folder, context.absolute(word)));
  const point = words.find((_, i) => folders[i] === null) ?? "head";
  const line = ["cairn", "-C", folder, "restore", point, ...paths].map(shellQuote).join(" ");
  return reworded(toCairnError(error), { hint: `${listedNames(paths)} lies in the workspace ${folder}: ${line}` });
}
