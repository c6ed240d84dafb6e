import { UnlockOptions } from "../../../contract/repositories.ts";
import type { CommandDefinition } from "../../command.ts";
import { VerbOptions } from "../../options.ts";
import { plural } from "../../render/format.ts";
import { REPOSITORY_OPTIONS, withRepository } from "./repository.ts";

const OPTIONS = new VerbOptions(UnlockOptions.entries);
const ALL = "\nif no process uses the repository, `cairn backup unlock --all` removes these too";

export const command: CommandDefinition = {
  name: "backup unlock",
  options: [...REPOSITORY_OPTIONS, ...OPTIONS.definitions],
  examples: [
    {
      line: "cairn backup unlock -r /srv/backups",
      text: "remove locks whose process is gone or that are 30 minutes old; other commands do this by themselves",
    },
  ],
  async run(context, input) {
    return withRepository(context, input, async (repository) => {
      const result = await repository.unlock({ ...context.callOptions(), ...OPTIONS.read(context, input) });
      return {
        data: result,
        text: () =>
          `${plural(result.removed, "lock")} removed${result.held === 0 ? "" : `, ${result.held} still held${ALL}`}`,
      };
    });
  },
};
