import { splitTags } from "../../../formats/snapshot.ts";
import type { TagBackupsOptions, TagBackupsResult } from "../../../operations/contract.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { type Input, usage } from "../../input.ts";
import { plural, printable } from "../../render/format.ts";
import { FILTER_OPTIONS, readChoice } from "./list.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";

export const command: CommandDefinition = {
  name: "backup tag",
  arguments: [{ name: "[snapshots...]", text: "ids, prefixes, or latest; default: all that the filter takes" }],
  options: [
    ...REPOSITORY_OPTIONS,
    ...FILTER_OPTIONS,
    { flags: "--add <tags>", text: "tags to add, comma between; may be repeated", repeat: true },
    { flags: "--remove <tags>", text: "tags to take away", repeat: true },
    { flags: "--set <tags>", text: "these and no others; '': none", repeat: true },
    { flags: "--dry-run", text: "only say what would change" },
  ],
  examples: [
    { line: "cairn backup tag -r /srv/backups 1a2b3c4d --add keep", text: "so that `forget --keep-tag keep` keeps it" },
    { line: "cairn backup tag -r /srv/backups --tag wip --remove wip", text: "take a tag away wherever it is" },
  ],
  run,
};

async function run(context: Context, input: Input): Promise<Outcome> {
  const tags = (name: string): string[] => input.list(name).flatMap(splitTags);
  const given = input.list("set");
  if (given.some((text) => text !== "" && splitTags(text).length === 0))
    throw usage("--set has no tag in it; '' takes all away");
  const options: TagBackupsOptions = {
    ...context.callOptions(),
    ...readChoice(context, input),
    add: tags("add"),
    remove: tags("remove"),
  };
  if (given.length > 0) options.set = tags("set");
  if (input.flag("dryRun")) options.dryRun = true;
  return withRepository(context, input, async (repository) => {
    const result = await repository.tag(options);
    return { data: result, text: () => render(context, result) };
  });
}

function render({ style }: Context, { tagged, unchanged, dry_run: isDry }: TagBackupsResult): string {
  const lines = tagged.map(({ snapshot_id: id, new_id: newId, tags }) => {
    const now = newId === null ? "" : ` is ${style.bold(newId.slice(0, 8))} now,`;
    const has = tags.length === 0 ? "without tags" : `tagged ${printable(tags.join(", "))}`;
    return `${id.slice(0, 8)}${now} ${isDry ? "would be " : ""}${has}`;
  });
  if (tagged.length === 0)
    lines.push(unchanged === 0 ? "no snapshot fits" : `nothing to change: ${plural(unchanged, "snapshot")} as wanted`);
  return lines.join("\n");
}
