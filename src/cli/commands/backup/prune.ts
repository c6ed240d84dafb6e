import { append } from "../../../append.ts";
import type { PruneBackupsResult } from "../../../contract/index.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { applyLine, formatBytes, formatDuration, formatMinute, listedNames, plural } from "../../render/format.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";
import { PruneBackupsOptions } from "../../../contract/repositories.ts";
import { pick } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(pick(PruneBackupsOptions, "maxUnused", "allow", "instant", "dryRun", "plan"));

export const command: CommandDefinition = {
  name: "backup prune",
  options: [...REPOSITORY_OPTIONS, ...OPTIONS.definitions],
  examples: [
    { line: "cairn backup prune -r /srv/backups", text: "free data that no snapshot needs" },
    { line: "cairn backup prune -r /srv/backups --max-unused 0", text: "free every unused byte" },
    {
      line: "cairn backup prune -r /srv/backups --plan",
      text: "report which packs would be marked, freed and rewritten",
    },
  ],
  async run(context, input) {
    const options = { ...context.callOptions(), ...OPTIONS.read(context, input) };
    return withRepository(context, input, async (repository) => {
      const result = await repository.prune(options);
      return { data: result, text: () => render(context, result).join("\n") };
    });
  },
};

function render(context: Context, result: PruneBackupsResult): string[] {
  const { plan_id: plan, planned_packs: packs } = result;
  const names = Object.entries(packs ?? {}).flatMap(([what, all]) =>
    all.length === 0 ? [] : [`  ${what} ${listedNames(all.map((name) => name.slice(0, 8)))}`],
  );
  const lines = [...renderPrune(context, result), ...names];
  return plan === null ? lines : [...lines, applyLine(plan, context.style)];
}

export function renderPrune({ style }: Context, result: PruneBackupsResult): string[] {
  const { repacked_packs: repacked, postponed } = result;
  const removed = result.removed_packs + result.unindexed_packs;
  const freed = `${formatBytes(Math.max(0, result.bytes_freed))}`;
  const damaged: string[] = [];
  if (result.damaged_packs.length > 0)
    damaged.push(
      style.red(`${plural(result.damaged_packs.length, "damaged pack")} not changed: see \`cairn backup verify\``),
    );
  const marked = renderMarked(result);
  if (result.dry_run)
    return [
      `would free ${freed}: ${plural(removed, "pack")} unused, ${plural(repacked, "pack")} to repack`,
      ...marked,
      ...damaged,
    ];
  const lines: string[] = [];
  if (removed + repacked > 0)
    lines.push(
      `${style.green("freed")} ${freed}: ${plural(removed, "pack")} removed, ${plural(repacked, "pack")} repacked, ${formatDuration(result.duration_ms)}`,
    );
  else if (!postponed && marked.length === 0) lines.push("nothing to free");
  append(lines, marked);
  const { merged_packs: packs, merged_indexes: indexes } = result;
  if (packs + indexes > 0)
    lines.push(`merged ${plural(packs, "small pack")} and ${plural(indexes, "small index file")} into fewer`);
  if (postponed)
    lines.push(
      style.yellow("other processes use the repository, or its lists are incomplete: the next prune deletes the rest"),
    );
  return [...lines, ...damaged];
}

/** Says what is marked, and when it will be freed. */
function renderMarked({ dry_run: isDry, marked_packs: packs, ...result }: PruneBackupsResult): string[] {
  if (packs === 0) return [];
  const { marked_bytes: bytes, free_from: from } = result;
  const when =
    from === null ? "" : `: a prune after ${formatMinute(from, Date.now())} frees what is then still unneeded`;
  return [
    `${isDry ? "would mark" : "marked"} ${formatBytes(bytes)} in ${plural(packs, "pack")} that nothing needs${when}, \`--instant\` frees it now`,
  ];
}
