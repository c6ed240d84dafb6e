import type { BackupStats } from "../../../contract/index.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { formatBytes, plural, printable } from "../../render/format.ts";
import { FILTER_OPTIONS, readChoice } from "./list.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";

export const command: CommandDefinition = {
  name: "backup stats",
  answers: true,
  arguments: [{ name: "[snapshots...]", text: "also count these snapshots: ids, prefixes, or latest" }],
  options: [...REPOSITORY_OPTIONS, ...FILTER_OPTIONS],
  examples: [
    { line: "cairn backup stats -r /srv/backups", text: "size of the data, and size as stored" },
    { line: "cairn backup stats -r /srv/backups latest", text: "also the size of a restore of the newest snapshot" },
  ],
  async run(context, input) {
    return withRepository(context, input, async (repository) => {
      const options = { ...context.callOptions(), ...readChoice(context, input) };
      const result = await repository.stats(options);
      return { data: result, text: () => render(context, result) };
    });
  },
};

function render({ style }: Context, stats: BackupStats): string {
  const lines = [
    `${style.bold(printable(stats.location))}  repository ${stats.repository_id.slice(0, 8)}, version ${stats.version}`,
    `  ${plural(stats.snapshots, "snapshot")} of ${formatBytes(stats.plain_bytes)} in ${plural(stats.data_blobs, "data blob")} and ${plural(stats.tree_blobs, "tree")}, each counted once`,
    `  ${formatBytes(stats.pack_bytes)} in ${plural(stats.packs, "pack")}, ${plural(stats.index_files, "index file")}`,
  ];
  if (stats.unindexed_packs > 0)
    lines.push(style.dim(`  ${plural(stats.unindexed_packs, "pack")} in no index: left by a process that was stopped`));
  const { selection } = stats;
  if (selection !== null)
    lines.push(
      `${style.bold(plural(selection.snapshots, "snapshot"))} chosen: ${plural(selection.files, "file")}, ${formatBytes(selection.bytes)} when restored`,
      `  ${formatBytes(selection.plain_bytes)} in ${plural(selection.data_blobs, "data blob")} and ${plural(selection.tree_blobs, "tree")}, ${formatBytes(selection.stored_bytes)} as stored; other snapshots may need them too`,
    );
  return lines.join("\n");
}
