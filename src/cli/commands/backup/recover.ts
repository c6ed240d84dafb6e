import { CairnError } from "../../../errors.ts";
import type { RecoverBackupsResult } from "../../../contract/index.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { limited, plural, printable } from "../../render/format.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";
import { RecoverBackupsOptions } from "../../../contract/snapshots.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(RecoverBackupsOptions.entries);

export const command: CommandDefinition = {
  name: "backup recover",
  options: [...REPOSITORY_OPTIONS, ...OPTIONS.definitions],
  examples: [
    { line: "cairn backup recover -r /srv/backups --plan", text: "list trees that no snapshot refers to" },
    { line: "cairn backup recover -r /srv/backups", text: "make one snapshot of them, tagged recovered" },
  ],
  async run(context, input) {
    const options = { ...context.callOptions(), ...OPTIONS.read(context, input) };
    return withRepository(context, input, async (repository) => {
      const result = await repository.recover(options);
      const outcome: Outcome = { data: result, text: () => render(context, result) };
      if (result.unreadable.length > 0)
        outcome.error = new CairnError("damaged", `${plural(result.unreadable.length, "tree")} cannot be read`, {
          hint: "run `cairn backup repair packs` to save the intact blobs of damaged packs",
        });
      return outcome;
    });
  },
};

const SHOWN = 20;

function render({ style }: Context, { gathered, unreadable }: RecoverBackupsResult): string {
  const damaged = unreadable.map(
    ({ tree, detail }) => `  tree ${tree.slice(0, 8)} cannot be read: ${printable(detail)}`,
  );
  if (gathered === null) return [...limited(damaged, SHOWN, style), "nothing to recover"].join("\n");
  const { new_id: id, trees } = gathered;
  const made = id === null ? "would make a snapshot" : `${style.green("snapshot")} ${style.bold(id.slice(0, 8))}`;
  const next = id === null ? "nothing was changed" : style.dim("to remove it again: `cairn backup forget ID`");
  return [
    `${made} of ${plural(trees.length, "tree")}`,
    ...limited(trees.map(shownTree), SHOWN, style),
    ...limited(damaged, SHOWN, style),
    next,
  ].join("\n");
}

function shownTree({ path, lost }: { path: string; lost: number }): string {
  return `    ${path}${lost === 0 ? "" : ` without ${plural(lost, "entry")}, whose data is partly lost`}`;
}
