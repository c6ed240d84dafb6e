import type { RepairBackupsOptions, RepairBackupsResult } from "../../../operations/contract.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import type { Input } from "../../input.ts";
import { usage } from "../../input.ts";
import { limited, plural, printable } from "../../render/format.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";

export const command: CommandDefinition = {
  name: "backup repair",
  arguments: [
    { name: "<what>", text: "index or packs" },
    { name: "[packs...]", text: "packs: only these; default all that reading every byte finds damaged" },
  ],
  options: [...REPOSITORY_OPTIONS, { flags: "--plan", text: "only say what would be done" }],
  examples: [
    { line: "cairn backup repair index -r /srv/backups --plan", text: "does the index say what packs there are?" },
    {
      line: "cairn backup repair packs -r /srv/backups",
      text: "save what is sound in damaged packs; the next backup stores again what it still has of the rest",
    },
  ],
  run,
};

async function run(context: Context, input: Input): Promise<Outcome> {
  const what = input.required(0);
  const packs = input.rest(1);
  if (what !== "index" && what !== "packs") throw usage(`repair knows index and packs; found ${JSON.stringify(what)}`);
  if (what === "index" && packs.length > 0) throw usage("repair index takes no packs");
  const options: RepairBackupsOptions = { ...context.callOptions(), what, packs };
  if (input.flag("plan")) options.plan = true;
  return withRepository(context, input, async (repository) => {
    const result = await repository.repair(options);
    return { data: result, text: () => render(context, result) };
  });
}

const SHOWN = 50;

function render({ style }: Context, result: RepairBackupsResult): string {
  const would = result.plan ? "would be " : "";
  const lines = [
    ...result.added_packs.map((pack) => `  pack ${pack.slice(0, 12)} ${would}listed again`),
    ...result.damaged_indexes.map((name) => `  index ${name.slice(0, 12)}, which cannot be read, ${would}replaced`),
    ...result.dropped_packs.map(
      ({ pack, blobs, reason }) =>
        `  pack ${pack.slice(0, 12)} (${plural(blobs, "blob")}) ${would}taken out: ${printable(reason)}`,
    ),
    ...result.unreadable_packs.map(
      ({ pack, reason }) => `  pack ${pack.slice(0, 12)} stays as it is: ${printable(reason)}`,
    ),
  ];
  if (lines.length === 0) return style.green("nothing to mend");
  const shown = limited(lines, SHOWN, style);
  if (result.plan) return [...shown, "nothing was changed"].join("\n");
  const lost = result.lost_blobs?.length ?? 0;
  const saved = `${plural(result.saved_blobs ?? 0, "blob")} saved out of damaged packs`;
  return [
    ...shown,
    `${style.green("mended")}: ${saved}${lost === 0 ? "" : `, ${plural(lost, "blob")} lost`}`,
    style.dim("`cairn backup verify` says what is missing now; a backup of a folder that has it stores it again"),
  ].join("\n");
}
