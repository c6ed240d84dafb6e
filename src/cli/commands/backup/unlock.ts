import type { CommandDefinition } from "../../command.ts";
import { plural } from "../../render/format.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";

const ALL = "\nif no process uses the repository, `cairn backup unlock --remove-all` removes these too";

export const command: CommandDefinition = {
  name: "backup unlock",
  options: [
    ...REPOSITORY_OPTIONS,
    { flags: "--remove-all", text: "remove all locks, even locks in use: a process that holds one may lose its work" },
  ],
  examples: [
    {
      line: "cairn backup unlock -r /srv/backups",
      text: "remove locks whose process is gone or that are 30 minutes old; other commands do this by themselves",
    },
  ],
  async run(context, input) {
    return withRepository(context, input, async (repository) => {
      const result = await repository.unlock({ ...context.callOptions(), all: input.flag("removeAll") });
      return {
        data: result,
        text: () =>
          `${plural(result.removed, "lock")} removed${result.held === 0 ? "" : `, ${result.held} still held${ALL}`}`,
      };
    });
  },
};
