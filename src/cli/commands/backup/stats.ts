import type { BackupStats } from "../../../operations/contract.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import type { Input } from "../../input.ts";
import { formatBytes, plural, printable } from "../../render/format.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";

export const command: CommandDefinition = {
  name: "backup stats",
  options: REPOSITORY_OPTIONS,
  examples: [{ line: "cairn backup stats -r /srv/backups", text: "how much is in it, and how much room that takes" }],
  run,
};

async function run(context: Context, input: Input): Promise<Outcome> {
  return withRepository(context, input, async (repository) => {
    const result = await repository.stats(context.callOptions());
    return { data: result, text: () => render(context, result) };
  });
}

function render({ style }: Context, stats: BackupStats): string {
  const lines = [
    `${style.bold(printable(stats.location))}  repository ${stats.repository_id.slice(0, 8)}, version ${stats.version}`,
    `  ${plural(stats.snapshots, "snapshot")} of ${formatBytes(stats.plain_bytes)} in ${plural(stats.data_blobs, "data blob")} and ${plural(stats.tree_blobs, "tree")}, each counted once`,
    `  ${formatBytes(stats.pack_bytes)} in ${plural(stats.packs, "pack")}, ${plural(stats.index_files, "index file")}`,
  ];
  if (stats.unindexed_packs > 0)
    lines.push(style.dim(`  ${plural(stats.unindexed_packs, "pack")} in no index: left by a writer that was stopped`));
  return lines.join("\n");
}
