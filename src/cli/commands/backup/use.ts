import { join } from "node:path";
import { InitOptions } from "../../../contract/care.ts";
import type { Client, KeptRepository, RepositoryInfo } from "../../../contract/index.ts";
import { KeptRepositoryEdit } from "../../../contract/repositories.ts";
import { pick } from "../../../contract/schema.ts";
import { tryKept } from "../../../daemon/unit.ts";
import { storedRetention } from "../../../formats/records/policy.ts";
import { durableMkdir, durableWrite } from "../../../fs/durable.ts";
import { userStateDirectory } from "../../../fs/users.ts";
import { shownAlarm } from "../../../keep/alarm.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { EXIT_PARTLY } from "../../envelope.ts";
import { canAsk, type Input, isConfirmed, usage } from "../../input.ts";
import { describeRules, KEEP_OPTIONS, readKeepRules } from "../../keep-rules.ts";
import { VerbOptions } from "../../options.ts";
import { formatAge, printable } from "../../render/format.ts";
import { locationOf, namedOptions, openNamed, REPOSITORY_OPTIONS } from "./repository.ts";

const OPTIONS = new VerbOptions(pick(InitOptions, "allow"));
/** Options of `REPOSITORY_OPTIONS` that are kept unchanged. */
const PASSWORD = new VerbOptions(pick(KeptRepositoryEdit, "passwordFile", "passwordCommand", "ageIdentity"));
const COMMANDS = new VerbOptions(pick(KeptRepositoryEdit, "onFailure", "probe"));

export const command: CommandDefinition = {
  name: "backup use",
  answers: true,
  arguments: [{ name: "[dir]", text: "the folder; default: the current folder", completes: "folders" }],
  options: [
    ...REPOSITORY_OPTIONS,
    ...COMMANDS.definitions,
    ...KEEP_OPTIONS,
    { flags: "--none", text: "forget the folder's repository", excludes: "all others" },
    ...OPTIONS.definitions,
  ],
  examples: [
    {
      line: "cairn backup use -r /srv/backups --password-file ~/.backup-password",
      text: "afterwards `cairn backup create` needs no options in this folder",
    },
    {
      line: "cairn backup use --keep-daily 14 --keep-weekly 8",
      text: "rules by which `cairn backup forget` and `cairn due` remove snapshots of this folder; nothing is removed now",
    },
    {
      line: "cairn backup use --on-failure 'jq -r .text | mail -s Backup ann'",
      text: "a mail when `cairn backup create` begins to fail in this folder, and when it is well again",
    },
    {
      line: `cairn backup use --probe 'sqlite3 "$DIR/mail.db" "select count(*) from messages"'`,
      text: "each backup keeps the answer, and a restored copy must give the same one",
    },
    { line: "cairn backup use", text: "show the folder's repository and rules" },
  ],
  async run(context, input) {
    const folder = input.argument(0);
    const edit = readEdit(context, input);
    const isChange = Object.keys(edit).length > 0;
    if (input.flag("none")) {
      const client = await context.open(folder);
      return shown(context, client, await client.setBackupRepository(null, context.callOptions()));
    }
    // Commands can be changed while the repository is not reachable.
    const { onFailure: _alarm, probe: _probe, ...others } = edit;
    if (Object.keys(others).length > 0) return keep(context, input, edit);
    const client = await context.open(folder);
    const options = context.callOptions();
    const kept = isChange ? client.setBackupRepository(edit, options) : client.backupRepository(options);
    return shown(context, client, await kept);
  },
};

function readEdit(context: Context, input: Input): KeptRepositoryEdit {
  const edit: KeptRepositoryEdit = PASSWORD.read(context, input);
  if (input.text("repo") !== undefined) edit.repository = locationOf(context, input);
  const { onFailure, probe } = COMMANDS.read(context, input);
  if (onFailure !== undefined) edit.onFailure = onFailure === "" ? null : onFailure;
  if (probe !== undefined) edit.probe = probe.filter((each) => each !== "");
  const rules = readKeepRules(context, input);
  if (Object.keys(rules).length > 0) edit.retention = rules;
  return edit;
}

/**
 * Opens the repository as a backup would before the settings are kept, and as the timer will afterwards, so that errors show now and
 * not in the nightly backup. Throws `usage` without a password that can be kept.
 */
async function keep(context: Context, input: Input, edit: KeptRepositoryEdit): Promise<Outcome> {
  const folder = input.argument(0);
  const isNew = edit.repository !== undefined;
  const former = await context.open(folder).catch((error: unknown) => {
    if (isNew) return null;
    throw error;
  });
  const kept =
    (await former?.backupRepository(context.callOptions()).catch((error: unknown) => {
      // A record that is damaged or another user's is replaced.
      if (isNew) return null;
      throw error;
    })) ?? undefined;
  if (!isNew && kept === undefined)
    throw usage("this folder has no repository yet", "set one: cairn backup use -r REPOSITORY");
  const sources = [edit.passwordFile, edit.passwordCommand, kept?.password_file, kept?.password_command];
  const isUnkept = sources.every((source) => typeof source !== "string");
  if (isUnkept && (context.globals.json || !canAsk())) throw unkept();
  const named = namedOptions(context, input, kept === undefined ? {} : { kept });
  let password: string | Uint8Array = "";
  const { password: ask } = named.options;
  named.options.password = async () => (password = typeof ask === "function" ? await ask() : ask);
  const opening = openNamed(context, named);
  const repository = await opening;
  await repository.close();
  if (isUnkept) edit.passwordFile = await keptPassword(repository.info, password);
  const client = former ?? (await context.openOrInit(folder, OPTIONS.read(context, input).allow, { before: opening }));
  const outcome = shown(context, client, await client.setBackupRepository(edit, context.callOptions()));
  const why = await tryKept(client.workspacePath(), context);
  if (why === null) return outcome;
  context.note(
    `without your terminal and its variables, as the timer and cron run, the repository does not open: ${why}`,
  );
  return { ...outcome, exitStatus: EXIT_PARTLY };
}

function unkept(): Error {
  return usage(
    "no password is kept, so the timer and cron could not back up",
    "keep it in a file that only you can read: --password-file FILE, or give a command that prints it: --password-command COMMAND",
  );
}

/** Writes a password that a person typed into a file of this user's, if the person agrees. Throws `usage` if not. */
async function keptPassword(
  { location, repository_id: id }: RepositoryInfo,
  password: string | Uint8Array,
): Promise<string> {
  const folder = join(userStateDirectory(), "passwords");
  const file = join(folder, id.slice(0, 16));
  if (!(await isConfirmed(`Keep the password of ${location} in ${file}, so that the timer can back up?`)))
    throw unkept();
  durableMkdir(folder, { mode: 0o700 });
  durableWrite(file, Buffer.from(password), { mode: 0o600 });
  return file;
}

function shown({ style }: Context, { workspace }: Client, kept: KeptRepository | null): Outcome {
  const retention = kept === null || kept.retention === null ? null : storedRetention(kept.retention);
  return {
    data: { workspace, kept: kept === null ? null : { ...kept, retention } },
    text() {
      const folder = printable(workspace.path);
      if (kept === null) return `no repository is set for ${folder}`;
      const rules = kept.retention === null ? "no rules: `backup forget` needs some" : describeRules(kept.retention);
      return [
        `${folder} is backed up into ${style.bold(printable(kept.repository))}`,
        `  password: ${passwordFrom(kept)}`,
        `  forget: ${printable(rules)}`,
        `  last good backup: ${kept.good_at === null ? "none yet" : formatAge(kept.good_at, Date.now())}`,
        ...kept.probe.map((probe) => `  probe: ${printable(probe)}`),
        ...(kept.on_failure === null ? [] : [`  alarm: ${shownAlarm(kept.on_failure)}`]),
      ].join("\n");
    },
  };
}

function passwordFrom({ password_file: file, password_command: line, age_identity: identity }: KeptRepository): string {
  const opened = identity === null ? "" : `, opened with ${printable(identity)}`;
  if (file !== null) return `in the file ${printable(file)}${opened}`;
  if (line !== null) return `printed by ${printable(line)}`;
  return "none is kept, so cron and the timer cannot back up: add --password-file FILE or --password-command COMMAND";
}
