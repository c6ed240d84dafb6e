import { isFolderOperand, NOW } from "../../../contract/operand.ts";
import type { BackupRepository, Client, LookOptions } from "../../../contract/index.ts";
import { KeptRepositoryEdit, RepositoryOptions } from "../../../contract/repositories.ts";
import { pick } from "../../../contract/schema.ts";
import type { Outcome } from "../../command.ts";
import { type Context, toWorkspacePath } from "../../context.ts";
import type { Input } from "../../input.ts";
import { VerbOptions } from "../../options.ts";

/** Options of commands that look at states: the repository of `backup:SNAPSHOT`, by default the one of `backup use`. */
export const BACKUP_OPTIONS = new VerbOptions({
  ...pick(RepositoryOptions, "repository"),
  ...pick(KeptRepositoryEdit, "passwordFile", "passwordCommand", "ageIdentity"),
}).definitions;

/** Returns an operand as the library reads it: folders are absolute, and paths begin at the state's root. */
export function operandOf(context: Context, client: Client, text: string): string {
  if (isFolderOperand(text)) return text === NOW || text.startsWith("~") ? text : context.absolute(text);
  const at = text.search(/:\.\.?(?:\/|$)/);
  if (at === -1) return text;
  return `${text.slice(0, at)}:${toWorkspacePath(client.workspacePath(), context.cwd, text.slice(at + 1))}`;
}

/** Opens the repository that the line names, else the kept one, while `work` and the text of its outcome are made. */
export async function withBackups(
  context: Context,
  input: Input,
  work: (repository: BackupRepository) => Promise<Outcome>,
): Promise<Outcome> {
  const { withRepository } = await import("../backup/repository.ts");
  return withRepository(context, input, async (repository) => {
    const outcome = await work(repository);
    if (context.globals.json || outcome.text === undefined) return outcome;
    const text = await outcome.text();
    return { ...outcome, text: () => text };
  });
}

/** Makes an outcome with the options of a look; with an open repository if `isFar`. */
export async function looked(
  context: Context,
  input: Input,
  isFar: boolean,
  work: (options: LookOptions) => Promise<Outcome>,
): Promise<Outcome> {
  const options = context.callOptions();
  return isFar ? withBackups(context, input, async (repository) => work({ ...options, repository })) : work(options);
}
