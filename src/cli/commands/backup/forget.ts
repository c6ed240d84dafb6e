import { hostname } from "node:os";
import { append } from "../../../append.ts";
import type { BackupRepository, ForgetBackupsResult, ForgetGroup } from "../../../contract/index.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import type { Input } from "../../input.ts";
import { usage } from "../../input.ts";
import { KEEP_OPTIONS, readKeepRules } from "../../keep-rules.ts";
import { applyLine, formatMinute, plural, printable, shellQuote } from "../../render/format.ts";
import { FILTER_OPTIONS, readChoice } from "./list.ts";
import { renderPrune } from "./prune.ts";
import { given, keptRepository, REPOSITORY_OPTIONS, withRepository } from "./repository.ts";
import { ForgetBackupsOptions } from "../../../contract/repositories.ts";
import { pick } from "../../../contract/schema.ts";
import { excluding } from "../../definitions.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(pick(ForgetBackupsOptions, "groupBy", "prune", "allow", "instant", "dryRun", "plan"));

export const command: CommandDefinition = {
  name: "backup forget",
  arguments: [{ name: "[snapshots...]", text: "exactly these snapshots, instead of rules; also unreadable ones" }],
  options: [
    ...REPOSITORY_OPTIONS,
    ...FILTER_OPTIONS,
    ...excluding(["[snapshots...]"], KEEP_OPTIONS),
    ...OPTIONS.definitions,
  ],
  examples: [
    {
      line: "cairn backup forget -r /srv/backups --keep-daily 14 --keep-weekly 8 --plan",
      text: "report which snapshots would be removed, and why",
    },
    {
      line: "cairn backup forget -r /srv/backups --keep-last 10 --prune",
      text: "remove snapshots, and free their data",
    },
    { line: "cairn backup forget -r /srv/backups 1a2b3c4d", text: "remove exactly this snapshot" },
  ],
  async run(context, input) {
    const snapshots = input.rest(0);
    const rules = readKeepRules(context, input);
    const isRuled = Object.keys(rules).length > 0;
    const options: ForgetBackupsOptions = {
      ...context.callOptions(),
      ...readChoice(context, input),
      ...OPTIONS.read(context, input),
    };
    if (isRuled) options.retention = rules;
    else if (snapshots.length === 0) Object.assign(options, await keptRules(context, input, options));
    return withRepository(context, input, async (repository) => {
      const result = await repository.forget(options);
      const isOfThisHost = !isRuled && snapshots.length === 0 && input.list("host").length === 0;
      const others = isOfThisHost && !context.globals.quiet ? await ofOtherHosts(repository, options) : [];
      return { data: result, paged: true, text: () => [render(context, result), ...others].join("\n") };
    });
  },
};

/** Returns the folder's kept rules. They apply only to the folder's own snapshots; others in the repository have their own rules. */
async function keptRules(
  context: Context,
  input: Input,
  { hosts = [], paths = [] }: ForgetBackupsOptions,
): Promise<ForgetBackupsOptions> {
  const kept = await keptRepository(context, input);
  if (kept === null || kept.retention === null)
    throw usage(
      "forget needs snapshots or a rule",
      "give for example --keep-last 10 --keep-daily 30; `cairn backup use --keep-daily 30` remembers rules for a folder",
    );
  const own = ownSnapshots(context, kept.folder);
  return {
    retention: kept.retention,
    hosts: hosts.length > 0 ? hosts : own.hosts,
    paths: paths.length > 0 ? paths : own.paths,
  };
}

/** Selects the snapshots of `folder` on this host, to which the folder's kept rules apply. */
export function ownSnapshots({ env }: Context, folder: string): { hosts: string[]; paths: string[] } {
  return { hosts: [given(env, undefined, "HOST")[0] ?? hostname()], paths: [folder] };
}

/** Names hosts with other snapshots of the folder, for example this machine's former name. */
async function ofOtherHosts(
  repository: BackupRepository,
  { hosts = [], paths }: ForgetBackupsOptions,
): Promise<string[]> {
  const { snapshots } = await repository.list({ paths: paths! });
  const others = Map.groupBy(snapshots, ({ hostname: host }) => host);
  for (const host of hosts) others.delete(host);
  return [...others].map(
    ([host, { length }]) =>
      `${plural(length, "snapshot")} of this folder from the host ${printable(host)} stay; to apply the rules to them, too: cairn backup forget --host ${shellQuote(printable(host))}`,
  );
}

function render(context: Context, result: ForgetBackupsResult): string {
  const { style } = context;
  const now = Date.now();
  const lines = result.groups.flatMap((group) => [
    style.bold(titleOf(group)),
    ...group.snapshots.map(({ snapshot_id: id, created_at: at, keep, reasons }) => {
      const word = keep ? style.green("keep") : style.red("drop");
      return `  ${word} ${id.slice(0, 8)}  ${formatMinute(at, now)}  ${style.dim(printable(reasons.join(", ")))}`;
    }),
  ]);
  if (result.unreadable.length > 0) lines.push(style.bold("cannot be read"));
  for (const { snapshot_id: id, reason } of result.unreadable)
    lines.push(`  ${style.red("drop")} ${id.slice(0, 8)}  ${style.dim(printable(reason))}`);
  const inGroups = result.groups.reduce((sum, group) => sum + group.snapshots.filter(({ keep }) => !keep).length, 0);
  const going = inGroups + result.unreadable.length;
  if (result.dry_run) lines.push(`${plural(going, "snapshot")} would be removed; nothing was`);
  else if (going === 0) lines.push("nothing to remove");
  else lines.push(`${style.green("removed")} ${plural(result.removed.length, "snapshot")}`);
  if (result.prune !== null) append(lines, renderPrune(context, result.prune));
  else if (going > 0 && !result.dry_run) lines.push(style.dim("run `cairn backup prune` to free their data"));
  if (result.plan_id !== null) lines.push(applyLine(result.plan_id, style));
  if (result.plan_id !== null && result.prune !== null)
    lines.push(style.dim("that binds the snapshots; the prune then frees what is unneeded at that time"));
  return lines.join("\n");
}

function titleOf({ hostname, paths, tags }: ForgetGroup): string {
  const parts = [hostname, paths?.join(" "), tags === null ? null : `tags ${tags.join(",") || "none"}`];
  const shown = parts.filter((part) => part !== null && part !== undefined && part !== "").join("  ");
  return shown === "" ? "all snapshots" : printable(shown);
}
