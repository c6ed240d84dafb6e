import { tagEdit } from "../../contract/points.ts";
import type { CommandDefinition } from "../command.ts";
import { splitTags, VerbOptions } from "../options.ts";
import { usage } from "../input.ts";
import { printable } from "../render/format.ts";
import { shortener } from "../shorten.ts";

const OPTIONS = new VerbOptions({ remove: tagEdit.remove });

export const command: CommandDefinition = {
  name: "tag",
  arguments: [
    { name: "<point>", text: "a save point", completes: "points" },
    { name: "[tag...]", text: "tags to add" },
  ],
  options: OPTIONS.definitions,
  examples: [
    { line: "cairn tag head release v2", text: "add two tags" },
    { line: "cairn tag 1a2b3c4d --remove wip", text: "remove one" },
  ],
  async run(context, input) {
    const [add, remove] = [splitTags(input.rest(1)), splitTags(input.list("remove"))];
    if (add.length + remove.length === 0) throw usage("tag needs a tag to add, or --remove TAG");
    const client = await context.open();
    const point = await client.tag(input.required(0), { add, remove }, context.callOptions());
    return {
      data: { save_point: point },
      async text() {
        const id = (await shortener(client, [point.save_point_id]))(point.save_point_id);
        const tags = point.tags.length === 0 ? "no tags" : point.tags.map((tag) => `#${printable(tag)}`).join(" ");
        return `${context.style.bold(id)} has ${tags}`;
      },
    };
  },
};
