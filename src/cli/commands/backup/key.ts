import { realpathSync, statSync } from "node:fs";
import type { BackupRepository, KeptRepository, RepositoryKeys } from "../../../contract/index.ts";
import { toCairnError } from "../../../errors.ts";
import { AgeKeyOptions } from "../../../contract/repositories.ts";
import { type CommandDefinition, group, type Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import type { OptionDefinition } from "../../definitions.ts";
import { passwordOf } from "../../../keep/tasks.ts";
import { durableWrite } from "../../../fs/durable.ts";
import { type Input, isConfirmed } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { askPassword } from "../../password.ts";
import { formatAge, plural, printable, shellQuote } from "../../render/format.ts";
import { renderTable } from "../../render/table.ts";
import { isWrongPassword, keptFor, REPOSITORY_OPTIONS, withRepository } from "./repository.ts";

const AGE = new VerbOptions(AgeKeyOptions.entries);
const NEW_PASSWORD: OptionDefinition = {
  flags: "--new-password-file <file>",
  text: "file with the new password (also CAIRN_NEW_PASSWORD_FILE, or CAIRN_NEW_PASSWORD_COMMAND)",
};

const list: CommandDefinition = {
  name: "backup key list",
  answers: true,
  options: REPOSITORY_OPTIONS,
  examples: [{ line: "cairn backup key list -r /srv/backups", text: "list the keys, with who added them and when" }],
  run: async (context, input) =>
    keysAfter(context, input, async (repository) => repository.keys(context.callOptions())),
};

const add: CommandDefinition = {
  name: "backup key add",
  answers: true,
  options: [
    ...REPOSITORY_OPTIONS,
    { ...NEW_PASSWORD, excludes: ["--to"] },
    ...AGE.definitions.map((option) => ({
      ...option,
      needs: option.flags.startsWith("--to") ? "--age-recipient" : "--to",
    })),
  ],
  examples: [
    { line: "cairn backup key add -r /srv/backups", text: "add a password" },
    {
      line: "cairn backup key add -r /srv/backups --age-recipient age1qq… --to shop.age",
      text: "add an encrypted password: it opens with --password-file shop.age --age-identity ~/.age/key.txt",
    },
  ],
  async run(context, input) {
    const { recipients, file } = AGE.read(context, input);
    const fresh = newPassword(context, input);
    const options = context.callOptions();
    return keysAfter(context, input, async (repository) =>
      recipients === undefined || file === undefined
        ? repository.addKey(fresh, options)
        : repository.addAgeKey({ ...options, recipients, file }),
    );
  },
};

const remove: CommandDefinition = {
  name: "backup key remove",
  answers: true,
  arguments: [{ name: "<key>", text: "the key's id or a prefix of it" }],
  options: REPOSITORY_OPTIONS,
  examples: [{ line: "cairn backup key remove 1a2b3c4d -r /srv/backups", text: "remove a password" }],
  run: async (context, input) =>
    keysAfter(context, input, async (repository) => repository.removeKey(input.required(0), context.callOptions())),
};

const passwd: CommandDefinition = {
  name: "backup key passwd",
  answers: true,
  options: [...REPOSITORY_OPTIONS, NEW_PASSWORD],
  examples: [{ line: "cairn backup key passwd -r /srv/backups", text: "change the password in use" }],
  async run(context, input) {
    let [bytes, where]: [Uint8Array, string] = [new Uint8Array(), ""];
    const ask = newPassword(context, input);
    const fresh = async (): Promise<Uint8Array> => (bytes = await ask());
    const outcome = await keysAfter(context, input, async (repository) => {
      where = repository.info.location;
      return repository.changePassword(fresh, context.callOptions());
    });
    const kept = await keptFor(context).catch(() => null);
    if (kept?.repository === where) await renewKept(context, kept, bytes);
    return outcome;
  },
};

export const command = group({
  name: "backup key",
  options: REPOSITORY_OPTIONS,
  examples: [...list.examples, ...add.examples],
  verbs: {
    list: { summary: "list the passwords of a repository", load: async () => ({ command: list }) },
    add: { summary: "add a password", load: async () => ({ command: add }) },
    remove: { summary: "remove a password", load: async () => ({ command: remove }) },
    passwd: { summary: "change the password in use", load: async () => ({ command: passwd }) },
  },
});

/** If the source of scheduled backups has the former password, offers to write the new one into its file; else warns. */
async function renewKept(
  context: Context,
  kept: KeptRepository & { folder: string },
  fresh: Uint8Array,
): Promise<void> {
  const { password_file: file, password_command: command, age_identity: identity, folder } = kept;
  const source = file ?? command;
  if (source === null) return;
  const { env, signal } = context;
  const opening = { ...context.callOptions(), env, repository: kept.repository };
  const isFormer = await (
    await context.library()
  )
    .openRepository({ ...opening, password: async () => passwordOf(kept, signal) })
    .then(async (open) => open.close(), isWrongPassword);
  if (isFormer !== true) return;
  const isPlain = file !== null && identity === null;
  try {
    if (isPlain && (await isConfirmed(`write the new password into ${file}, where backups of ${folder} read it?`)))
      return durableWrite(realpathSync(file), Buffer.concat([fresh, Buffer.from("\n")]), {
        mode: statSync(file).mode & 0o777,
      });
  } catch (error) {
    // The password is changed already.
    context.note(toCairnError(error).message);
  }
  context.note(
    `backups of ${printable(folder)} fail until ${printable(source)} gives the new password; or name another source: cairn backup use ${shellQuote(folder)} --password-file FILE`,
  );
}

/** Calls `act` with the repository, and shows the keys that the repository has afterwards. */
async function keysAfter(
  context: Context,
  input: Input,
  act: (repository: BackupRepository) => Promise<RepositoryKeys>,
): Promise<Outcome> {
  return withRepository(context, input, async (repository) => {
    const result = await act(repository);
    const output = input.text("to");
    const made =
      output === undefined ? [] : [`the password file ${printable(output)} opens the repository, with --age-identity`];
    return { data: result, text: async () => [...made, await render(context, result)].join("\n") };
  });
}

/** Returns a function that reads the new password from the options or `CAIRN_NEW_PASSWORD` and similar variables, or asks twice. */
function newPassword(context: Context, input: Input): () => Promise<Uint8Array> {
  const file = input.text("newPasswordFile");
  if (file !== undefined) context.place(file);
  return async () => {
    const { env, cwd, signal } = context;
    context.progress.finish();
    const asked = { file, variable: "NEW_PASSWORD", env, cwd, question: "new password", twice: true, signal };
    return (await askPassword(asked)).bytes;
  };
}

async function render({ style }: Context, result: RepositoryKeys): Promise<string> {
  const now = Date.now();
  const rows = result.keys.map((key) => [
    key.current ? style.green("*") : " ",
    style.bold(key.key_id.slice(0, 8)),
    key.created_at === null ? "" : formatAge(key.created_at, now),
    key.username === "" && key.hostname === "" ? "" : printable(`${key.username}@${key.hostname}`),
  ]);
  const lines = await renderTable(rows, []);
  for (const { key_id: id, detail } of result.damaged)
    lines.push(style.red(`key ${id.slice(0, 8)} cannot be read: ${printable(detail)}`));
  return [...lines, style.dim(`${plural(result.keys.length, "key")}; * is the one in use`)].join("\n");
}
