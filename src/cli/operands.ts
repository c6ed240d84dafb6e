import { existsSync } from "node:fs";
import type { Client } from "../contract/index.ts";
import { isBackupOperand, isFolderOperand, NOW, readOperand } from "../contract/operand.ts";
import { KeptRepositoryEdit, RepositoryOptions } from "../contract/repositories.ts";
import { pick } from "../contract/schema.ts";
import { type Context, toWorkspacePath } from "./context.ts";
import { type Input, usage } from "./input.ts";
import { VerbOptions } from "./options.ts";

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
