import type { BackupRepository, RepositoryKeys } from "../../../contract/index.ts";
import { AgeKeyOptions } from "../../../contract/repositories.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { only, type OptionDefinition } from "../../definitions.ts";
import type { Input } from "../../input.ts";
import { usage } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { askPassword } from "../../password.ts";
import { formatAge, plural, printable } from "../../render/format.ts";
import { renderTable } from "../../render/table.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";

const AGE = new VerbOptions(AgeKeyOptions.entries);
const NEW_PASSWORD: OptionDefinition = {
  flags: "--new-password-file <file>",
  text: "file with the new password (also CAIRN_NEW_PASSWORD_FILE, or CAIRN_NEW_PASSWORD_COMMAND)",
  excludes: ["--to"],
};
const ACTIONS = ["list", "add", "remove", "passwd"];

export const command: CommandDefinition = {
  name: "backup key",
  answers: true,
  arguments: [
    { name: "<action>", text: "list, add, remove or passwd", completes: ACTIONS },
    { name: "[key]", text: "remove: the key's id or a prefix of it", of: ["remove"] },
  ],
  options: [
    ...REPOSITORY_OPTIONS,
    ...only({ of: ["add", "passwd"] }, [NEW_PASSWORD]),
    ...only({ of: ["add"] }, AGE.definitions).map((option) => ({
      ...option,
      needs: option.flags.startsWith("--to") ? "--age-recipient" : "--to",
    })),
  ],
  examples: [
    { line: "cairn backup key list -r /srv/backups", text: "list the keys, with who added them and when" },
    { line: "cairn backup key add -r /srv/backups", text: "add a password" },
    {
      line: "cairn backup key add -r /srv/backups --age-recipient age1qq… --to shop.age",
      text: "add an encrypted password: it opens with --password-file shop.age --age-identity ~/.age/key.txt",
    },
    { line: "cairn backup key passwd -r /srv/backups", text: "change the password in use" },
  ],
  async run(context, input) {
    const action = input.required(0);
    const key = input.argument(1);
    if (!ACTIONS.includes(action))
      throw usage(`the action of backup key must be one of ${ACTIONS.join(", ")}; found ${JSON.stringify(action)}`);
    const { recipients, file } = AGE.read(context, input);
    const newFile = input.text("newPasswordFile");
    if (newFile !== undefined) context.place(newFile);
    const age = recipients === undefined || file === undefined ? null : { recipients, file };
    return withRepository(context, input, async (repository) => {
      const result = await act(context, input, { repository, action, key, age });
      const output = input.text("to");
      const made =
        output === undefined
          ? []
          : [`the password file ${printable(output)} opens the repository, with --age-identity`];
      return { data: result, text: async () => [...made, await render(context, result)].join("\n") };
    });
  },
};

async function act(
  context: Context,
  input: Input,
  what: { repository: BackupRepository; action: string; key: string | undefined; age: AgeKeyOptions | null },
): Promise<RepositoryKeys> {
  const { repository, action, key, age } = what;
  const options = context.callOptions();
  const fresh = async (): Promise<Uint8Array> => newPassword(context, input);
  if (age !== null) return repository.addAgeKey({ ...options, ...age });
  if (action === "add") return repository.addKey(fresh, options);
  if (action === "passwd") return repository.changePassword(fresh, options);
  return action === "remove" ? repository.removeKey(key!, options) : repository.keys(options);
}

/** Reads the new password from the options or `CAIRN_NEW_PASSWORD` and similar variables, or asks twice. */
async function newPassword(context: Context, input: Input): Promise<Uint8Array> {
  context.progress.finish();
  const { bytes } = await askPassword({
    file: input.text("newPasswordFile"),
    variable: "NEW_PASSWORD",
    env: context.env,
    cwd: context.cwd,
    question: "new password",
    twice: true,
    signal: context.signal,
  });
  return bytes;
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
