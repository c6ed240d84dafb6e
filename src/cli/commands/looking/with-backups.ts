import type { BackupRepository, LookOptions } from "../../../contract/index.ts";
import type { Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import type { Input } from "../../input.ts";
import { requireNoRepository } from "../../operands.ts";

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
  if (!isFar) requireNoRepository(input);
  return isFar ? withBackups(context, input, async (repository) => work({ ...options, repository })) : work(options);
}
