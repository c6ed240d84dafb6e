import { CairnError } from "../../../errors.ts";
import type { RepairBackupsOptions, RepairBackupsResult, RepairSnapshotsResult } from "../../../contract/index.ts";
import { type CommandDefinition, group, type Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import type { Input } from "../../input.ts";
import { limited, plural, printable } from "../../render/format.ts";
import { REPOSITORY_OPTIONS, UNREADABLE_HINT, withRepository } from "./repository.ts";
import { RepairSnapshotsOptions } from "../../../contract/snapshots.ts";
import { pick } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";

const PLAN = new VerbOptions(pick(RepairSnapshotsOptions, "plan"));
const OF_SNAPSHOTS = new VerbOptions(pick(RepairSnapshotsOptions, "plan", "forget"));

const index: CommandDefinition = {
  name: "backup repair index",
  options: [...REPOSITORY_OPTIONS, ...PLAN.definitions],
  examples: [
    {
      line: "cairn backup repair index -r /srv/backups --plan",
      text: "check whether the index lists the packs that exist",
    },
  ],
  run: async (context, input) => repaired(context, input, { what: "index" }),
};

const packs: CommandDefinition = {
  name: "backup repair packs",
  arguments: [
    { name: "[packs...]", text: "only these packs; default: all that are found damaged by reading every byte" },
  ],
  options: [...REPOSITORY_OPTIONS, ...PLAN.definitions],
  examples: [
    {
      line: "cairn backup repair packs -r /srv/backups",
      text: "save the intact blobs of damaged packs; the next backup stores lost data again if the folder still has it",
    },
  ],
  async run(context, input) {
    const named = input.rest(0);
    return repaired(context, input, { what: "packs", ...(named.length > 0 ? { packs: named } : {}) });
  },
};

const snapshots: CommandDefinition = {
  name: "backup repair snapshots",
  arguments: [{ name: "[snapshots...]", text: "only these snapshots; default: all" }],
  options: [...REPOSITORY_OPTIONS, ...OF_SNAPSHOTS.definitions],
  examples: [
    {
      line: "cairn backup repair snapshots -r /srv/backups --plan",
      text: "report what each snapshot has lost; without --plan, make new snapshots without the lost data",
    },
  ],
  async run(context, input) {
    const options: RepairSnapshotsOptions = { ...context.callOptions(), ...OF_SNAPSHOTS.read(context, input) };
    const named = input.rest(0);
    if (named.length > 0) options.snapshots = named;
    return withRepository(context, input, async (repository) => {
      const result = await repository.repairSnapshots(options);
      const outcome: Outcome = { data: result, text: () => renderSnapshots(context, result) };
      const unreadable = result.unreadable.length;
      if (unreadable > 0)
        outcome.error = new CairnError("damaged", `${plural(unreadable, "snapshot")} cannot be repaired`, {
          hint: UNREADABLE_HINT,
        });
      return outcome;
    });
  },
};

/** The verbs are in the order in which a repository is repaired. */
export const command = group({
  name: "backup repair",
  options: REPOSITORY_OPTIONS,
  examples: [...index.examples, ...packs.examples, ...snapshots.examples],
  verbs: {
    index: { summary: "make the index list the packs that exist", load: async () => ({ command: index }) },
    packs: { summary: "save the intact data of damaged packs", load: async () => ({ command: packs }) },
    snapshots: { summary: "make new snapshots without lost data", load: async () => ({ command: snapshots }) },
  },
});

async function repaired(
  context: Context,
  input: Input,
  of: Pick<RepairBackupsOptions, "what" | "packs">,
): Promise<Outcome> {
  const { plan } = PLAN.read(context, input);
  return withRepository(context, input, async (repository) => {
    const result = await repository.repair({ ...context.callOptions(), ...of, plan });
    return { data: result, text: () => render(context, result) };
  });
}

function renderSnapshots({ style }: Context, result: RepairSnapshotsResult): string {
  const lines = result.repaired.flatMap((each) => {
    const made =
      each.new_id === null ? "no data of it is left" : `replaced by ${each.new_id.slice(0, 8)} without the lost data`;
    const fate = result.plan ? "" : `: ${made}${each.forgotten ? ", and the old snapshot was forgotten" : ""}`;
    const lost = each.lost.map(({ path, kind, detail }) => {
      const end = kind === "directory" ? "/" : "";
      return `    /${printable(path)}${path === "" ? "" : end}: ${printable(detail)}`;
    });
    return [
      `  snapshot ${each.snapshot_id.slice(0, 8)} lacks ${plural(lost.length, "path")}${fate}`,
      ...limited(lost, SHOWN, style),
    ];
  });
  const stays = result.unreadable.map(
    ({ snapshot_id: id, reason }) => `  snapshot ${id.slice(0, 8)} stays as it is: ${printable(reason)}`,
  );
  const isAlone = result.repaired.length + stays.length === 0;
  const word = plural(result.intact, isAlone ? "snapshot" : "other snapshot");
  const whole = result.intact === 0 ? "" : `; ${word} ${result.intact === 1 ? "is" : "are"} intact`;
  if (result.repaired.length === 0) return [...stays, `${style.green("nothing to repair")}${whole}`].join("\n");
  const end = result.plan ? "nothing was changed" : style.green("repaired");
  return [...lines, ...stays, `${end}${whole}`].join("\n");
}

const SHOWN = 50;

function render({ style }: Context, result: RepairBackupsResult): string {
  const would = result.plan ? "would be " : "";
  const lines = [
    ...result.added_packs.map((pack) => `  pack ${pack.slice(0, 12)} ${would}listed again`),
    ...result.damaged_indexes.map((name) => `  index ${name.slice(0, 12)}, which cannot be read, ${would}replaced`),
    ...result.dropped_packs.map(
      ({ pack, blobs, reason }) =>
        `  pack ${pack.slice(0, 12)} (${plural(blobs, "blob")}) ${would}removed from the index: ${printable(reason)}`,
    ),
    ...result.unreadable_packs.map(
      ({ pack, reason }) => `  pack ${pack.slice(0, 12)} stays as it is: ${printable(reason)}`,
    ),
  ];
  if (lines.length === 0) return style.green("nothing to repair");
  const shown = limited(lines, SHOWN, style);
  if (result.plan) return [...shown, "nothing was changed"].join("\n");
  const [saved, lost] = [result.saved_blobs ?? 0, result.lost_blobs?.length ?? 0];
  const blobs = [
    saved === 0 ? "" : `: ${plural(saved, "blob")} saved from damaged packs`,
    lost === 0 ? "" : `, ${plural(lost, "blob")} lost`,
  ];
  return [
    ...shown,
    `${style.green("repaired")}${blobs.join("")}`,
    style.dim(
      "run `cairn backup verify` to see what is missing now; a backup of a folder that still has the data stores it again, and `repair snapshots` makes snapshots without it",
    ),
  ].join("\n");
}
