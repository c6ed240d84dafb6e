import type { CreateBackupOptions, CreateBackupResult } from "../../../contract/index.ts";
import type { Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { EXIT_PARTLY } from "../../envelope.ts";
import { type Input, usage } from "../../input.ts";
import { plural } from "../../render/format.ts";
import { whileOpening } from "./repository.ts";

/** Backs up each snapshot of a msgvault repository. A snapshot whose point is in the repository already is skipped. */
export async function backUpMsgvault(
  context: Context,
  input: Input,
  { dryRun, isAlone, ...options }: CreateBackupOptions & { isAlone: boolean },
): Promise<Outcome> {
  const [folder, ...others] = input.rest(0);
  if (!isAlone || input.list("filesFrom").length > 0 || dryRun === true || others.length > 0)
    throw usage(
      "--from-msgvault takes one folder, and neither another source, nor --plan, --no-save or an option of a save",
    );
  const client = await context.openOrInit(folder);
  return whileOpening(
    context,
    input,
    async (opening) => {
      const repository = await opening;
      const from = context.absolute(input.text("fromMsgvault")!);
      const imported = await client.importMsgvaultPoints(from, context.callOptions());
      const { snapshots } = await repository.list(context.callOptions());
      const there = new Set(snapshots.map((each) => each.save_point_id));
      const backups: CreateBackupResult[] = [];
      for (const { save_point_id: point, tags } of imported.points) {
        if (there.has(point)) continue;
        const all = [...(options.tags ?? []), ...tags];
        backups.push(await client.createBackup(repository, { ...options, point, tags: all }));
      }
      for (const { snapshot_id: id, detail } of imported.damaged)
        context.note(`snapshot ${id} was left out: ${detail}`);
      const { style } = context;
      return {
        data: { ...imported, backups },
        exitStatus: imported.damaged.length === 0 ? 0 : EXIT_PARTLY,
        text: () =>
          `${style.green("backed up")} ${plural(backups.length, "snapshot")} of ${imported.points.length}; the others are there already`,
      };
    },
    { folder, saves: true },
  );
}
