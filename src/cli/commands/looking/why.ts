import type { CommandDefinition } from "../../command.ts";
import { usage } from "../../input.ts";
import { WhyOptions } from "../../../contract/repositories.ts";
import { pick } from "../../../contract/schema.ts";
import { VerbOptions } from "../../options.ts";
import { PATH_B64 } from "../../shown.ts";
import { shortener } from "../../shorten.ts";
import { BACKUP_OPTIONS } from "../../operands.ts";
import { looked } from "./with-backups.ts";

const OPTIONS = new VerbOptions(pick(WhyOptions, "limit", "in"));

export const command: CommandDefinition = {
  name: "why",
  answers: true,
  arguments: [{ name: "[path]", text: "a file or folder of the workspace, also a deleted one", completes: "files" }],
  options: [...OPTIONS.definitions, PATH_B64, ...BACKUP_OPTIONS],
  examples: [
    { line: "cairn why src/main.ts", text: "the points that changed the file, with their causes" },
    { line: "cairn why -n 1 notes.txt", text: "only the last change, for example a removal" },
    {
      line: "cairn why src/main.ts --in all -r /srv/backups",
      text: "this folder's backups that changed the file, too",
    },
  ],
  async run(context, input) {
    const given = OPTIONS.read(context, input);
    const [word, encoded] = [input.argument(0), input.text("pathB64")];
    if ((word === undefined) === (encoded === undefined)) throw usage("give one PATH, or --path-b64");
    const client = await context.open();
    const [path = ""] = context.workspacePaths(
      client,
      word === undefined ? [] : [word],
      encoded === undefined ? [] : [encoded],
    );
    const isFar = given.in !== undefined && given.in !== "points";
    return looked(context, input, isFar, async (look) => {
      const result = await client.why(path, { ...look, ...given });
      return {
        data: result,
        paged: true,
        async text() {
          const { renderWhy } = await import("../../render/points.ts");
          const ids = result.changes.flatMap(({ save_point: point, back_to: back }) =>
            [point.save_point_id, back ?? []].flat(),
          );
          const shorten = await shortener(client, ids);
          return renderWhy(result, { states: given.in, shorten, style: context.style, now: Date.now() });
        },
      };
    });
  },
};
