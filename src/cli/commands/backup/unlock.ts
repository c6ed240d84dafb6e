import type { CommandDefinition } from "../../command.ts";
import { plural } from "../../render/format.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";

const ALL = "\nonce nobody is at work there, `cairn backup unlock --remove-all` removes these too";

export const command: CommandDefinition = {
  name: "backup unlock",
  options: [
    ...REPOSITORY_OPTIONS,
    { flags: "--remove-all", text: "also locks that may be held: whoever holds one may lose what it does" },
  ],
  examples: [
    {
      line: "cairn backup unlock -r /srv/backups",
      text: "locks whose process is gone or that are 30 minutes old; other commands do the same by themselves",
    },
  ],
  async run(context, input) {
    return withRepository(context, input, async (repository) => {
      const result = await repository.unlock({ ...context.callOptions(), all: input.flag("removeAll") });
      return {
        data: result,
        text: () =>
          `${plural(result.removed, "lock")} removed${result.held === 0 ? "" : `, ${result.held} held by others${ALL}`}`,
      };
    });
  },
};
