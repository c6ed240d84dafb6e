import type { PruneBackupsResult } from "../../../contract/index.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { usage } from "../../input.ts";
import { formatBytes, formatDuration, plural } from "../../render/format.ts";
import { PACK_SIZE_OPTION, REPOSITORY_OPTIONS, withRepository } from "./repository.ts";
import { PruneBackupsOptions } from "../../../contract/repositories.ts";
import { pick } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(pick(PruneBackupsOptions, "allow", "instant", "dryRun"), { allow: "--allow <guard>" });

export const command: CommandDefinition = {
  name: "backup prune",
  options: [
    ...REPOSITORY_OPTIONS,
    PACK_SIZE_OPTION,
    { flags: "--max-unused <percent>", text: "how much of a pack may be unused before it is written anew; default 5" },
    ...OPTIONS.definitions,
  ],
  examples: [
    { line: "cairn backup prune -r /srv/backups", text: "free what no snapshot needs" },
    { line: "cairn backup prune -r /srv/backups --max-unused 0", text: "to the last byte" },
  ],
  async run(context, input) {
    const options: PruneBackupsOptions = { ...context.callOptions(), ...OPTIONS.read(context, input) };
    const percent = input.text("maxUnused");
    if (percent !== undefined) options.maxUnused = readPercent(percent);
    return withRepository(context, input, async (repository) => {
      const result = await repository.prune(options);
      return { data: result, text: () => renderPrune(context, result).join("\n") };
    });
  },
};

function readPercent(text: string): number {
  const match = /^(\d{1,3}(?:\.\d+)?)%?$/.exec(text);
  if (match === null || Number(match[1]) > 100)
    throw usage(
      `--max-unused wants a percentage from 0 to 100, found ${JSON.stringify(text)}`,
      "it is of each pack: 0 frees to the last byte, 100 writes no pack anew",
    );
  return Number(match[1]) / 100;
}

export function renderPrune({ style }: Context, result: PruneBackupsResult): string[] {
  const { repacked_packs: repacked, postponed } = result;
  const removed = result.removed_packs + result.unindexed_packs;
  const freed = `${formatBytes(Math.max(0, result.bytes_freed))}`;
  const damaged: string[] = [];
  if (result.damaged_packs.length > 0)
    damaged.push(
      style.red(`${plural(result.damaged_packs.length, "damaged pack")} left alone: see \`cairn backup verify\``),
    );
  if (result.dry_run)
    return [
      `would free ${freed}: ${plural(removed, "pack")} without use, ${plural(repacked, "pack")} written anew`,
      ...damaged,
    ];
  const lines: string[] = [];
  if (removed + repacked > 0)
    lines.push(
      `${style.green("freed")} ${freed}: ${plural(removed, "pack")} removed, ${plural(repacked, "pack")} written anew, ${formatDuration(result.duration_ms)}`,
    );
  else if (!postponed) lines.push("nothing to free");
  const { merged_packs: packs, merged_indexes: indexes } = result;
  if (packs + indexes > 0)
    lines.push(`merged ${plural(packs, "small pack")} and ${plural(indexes, "small index file")} into fewer`);
  if (postponed)
    lines.push(
      style.yellow(
        "others use the repository, or its lists are short: what could not be deleted goes with the next prune",
      ),
    );
  return [...lines, ...damaged];
}
