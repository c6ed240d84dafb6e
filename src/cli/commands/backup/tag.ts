import { splitTags } from "../../../formats/restic/snapshot.ts";
import type { TagBackupsResult } from "../../../contract/index.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { usage } from "../../input.ts";
import { plural, printable } from "../../render/format.ts";
import { FILTER_OPTIONS, readChoice } from "./list.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";
import { TagBackupsOptions } from "../../../contract/snapshots.ts";
import { pick } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(pick(TagBackupsOptions, "add", "remove", "set", "dryRun"));

export const command: CommandDefinition = {
  name: "backup tag",
  arguments: [
    { name: "[snapshots...]", text: "snapshots: ids, prefixes, or latest; default: all that match the filter" },
  ],
  options: [...REPOSITORY_OPTIONS, ...FILTER_OPTIONS, ...OPTIONS.definitions],
  examples: [
    {
      line: "cairn backup tag -r /srv/backups 1a2b3c4d --add keep",
      text: "add a tag, so that `forget --keep-tag keep` keeps the snapshot",
    },
    {
      line: "cairn backup tag -r /srv/backups --tag wip --remove wip",
      text: "remove a tag from every snapshot that has it",
    },
  ],
  async run(context, input) {
    const { add = [], remove = [], set, dryRun } = OPTIONS.read(context, input);
    if (set?.some((text) => text !== "" && splitTags(text).length === 0) === true)
      throw usage("--set names no tag; --set '' removes all tags");
    const options: TagBackupsOptions = {
      ...context.callOptions(),
      ...readChoice(context, input),
      add: add.flatMap(splitTags),
      remove: remove.flatMap(splitTags),
      set: set?.flatMap(splitTags),
      dryRun,
    };
    return withRepository(context, input, async (repository) => {
      const result = await repository.tag(options);
      return { data: result, text: () => render(context, result) };
    });
  },
};

function render({ style }: Context, { tagged, unchanged, dry_run: isDry }: TagBackupsResult): string {
  const lines = tagged.map(({ snapshot_id: id, new_id: newId, tags }) => {
    const now = newId === null ? "" : ` is ${style.bold(newId.slice(0, 8))} now,`;
    const has = tags.length === 0 ? "without tags" : `tagged ${printable(tags.join(", "))}`;
    return `${id.slice(0, 8)}${now} ${isDry ? "would be " : ""}${has}`;
  });
  if (tagged.length === 0)
    lines.push(
      unchanged === 0 ? "no snapshot matches" : `nothing to change: ${plural(unchanged, "snapshot")} already tagged so`,
    );
  return lines.join("\n");
}
