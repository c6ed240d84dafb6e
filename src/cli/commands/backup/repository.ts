import { resolve } from "node:path";
import type { BackupRepository, CallOptions, RepositoryOptions } from "../../../operations/contract.ts";
import type { Context } from "../../context.ts";
import type { OptionDefinition } from "../../definitions.ts";
import type { Input } from "../../input.ts";
import { usage } from "../../input.ts";
import { readPassword } from "../../password.ts";

/** What every verb takes to find its repository and to open it. */
export const REPOSITORY_OPTIONS: readonly OptionDefinition[] = [
  { flags: "-r, --repo <repository>", text: "where it lies: /path, local:/path, … (also CAIRN_REPOSITORY)" },
  { flags: "--password-file <file>", text: "the file that holds its password (also CAIRN_PASSWORD_FILE)" },
  { flags: "--password-command <command>", text: "the command that prints its password (also CAIRN_PASSWORD_COMMAND)" },
];

const PREFIXES = ["CAIRN_", "RESTIC_"];

/** The repository that a line or the environment names, and how its password is asked for. */
export function repositoryOptions(
  context: Context,
  input: Input,
  asked: { twice?: boolean } = {},
): RepositoryOptions & CallOptions {
  const repository = locationOf(context, input);
  return {
    ...context.callOptions(),
    repository,
    env: context.env,
    password: async () => {
      context.progress.finish();
      return readPassword({
        file: input.text("passwordFile"),
        command: input.text("passwordCommand"),
        variable: "PASSWORD",
        env: context.env,
        cwd: context.cwd,
        question: `password of ${repository}`,
        signal: context.signal,
        ...asked,
      });
    },
  };
}

/** A relative path is one from the current folder. */
function locationOf(context: Context, input: Input): string {
  const { env, cwd } = context;
  const named = PREFIXES.map((prefix) => env[`${prefix}REPOSITORY`]).find((value) => (value ?? "") !== "");
  const location = input.text("repo") ?? named;
  if (location === undefined || location === "")
    throw usage("which repository? name one with -r", "-r /srv/backups, or the variable CAIRN_REPOSITORY");
  const path = location.startsWith("local:") ? location.slice("local:".length) : location;
  return location.startsWith("local:") || !/^[A-Za-z][A-Za-z0-9+.-]*:/.test(location) ? resolve(cwd, path) : location;
}

/** Runs work with the repository open and closes it whatever happens. */
export async function withRepository<T>(
  context: Context,
  input: Input,
  work: (repository: BackupRepository) => Promise<T>,
): Promise<T> {
  const library = await context.library();
  const repository = await library.openRepository(repositoryOptions(context, input));
  try {
    return await work(repository);
  } finally {
    await repository.close();
  }
}
