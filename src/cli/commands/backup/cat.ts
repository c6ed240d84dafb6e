import type { CommandDefinition } from "../../command.ts";
import { printable } from "../../render/format.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";

export const command: CommandDefinition = {
  name: "backup cat",
  answers: true,
  arguments: [
    {
      name: "<kind>",
      text: "config, snapshot, index, key, lock, tree or blob",
      completes: ["config", "snapshot", "index", "key", "lock", "tree", "blob"],
    },
    { name: "[id]", text: "the object's id or a prefix of it" },
  ],
  options: REPOSITORY_OPTIONS,
  examples: [
    { line: "cairn backup cat snapshot latest -r /srv/backups", text: "the newest snapshot as it is stored" },
    { line: "cairn backup cat blob 1a2b3c4d -r /srv/backups > file", text: "a blob's bytes" },
  ],
  async run(context, input) {
    return withRepository(context, input, async (repository) => {
      const result = await repository.cat(input.required(0), input.argument(1), context.callOptions());
      const bytes = (result.content as { content_b64?: string } | null)?.content_b64;
      if (result.kind === "blob" && bytes !== undefined)
        return { data: result, content: once(Buffer.from(bytes, "base64")) };
      const text = JSON.stringify(result.content, null, 2).split("\n").map(printable).join("\n");
      return { data: result, paged: true, text: () => text };
    });
  },
};

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
