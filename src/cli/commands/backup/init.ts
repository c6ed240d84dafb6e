import type { InitRepositoryOptions } from "../../../contract/index.ts";
import type { CommandDefinition } from "../../command.ts";
import { printable } from "../../render/format.ts";
import { isRemote, namedOptions, REPOSITORY_OPTIONS } from "./repository.ts";

export const command: CommandDefinition = {
  name: "backup init",
  options: REPOSITORY_OPTIONS,
  examples: [
    {
      line: "cairn backup init -r /srv/backups",
      text: "asks for a new password; without it the data can never be read",
    },
    {
      line: "cairn backup init -r /srv/backups --password-file ~/.backup-password",
      text: "read the password from a file; keep a copy of it elsewhere",
    },
  ],
  async run(context, input) {
    const library = await context.library();
    const options: InitRepositoryOptions = namedOptions(context, input, { twice: true }).options;
    // An existing repository may have been made by this name.
    if (isRemote(options.repository)) context.requireText(options.repository);
    // Inside a workspace restic cuts large files in the repository as the workspace does.
    const like = (await library.find(context.folder(), context.callOptions())) ?? context.chosenFolder();
    if (like !== undefined) options.like = like;
    const repository = await library.initRepository(options);
    try {
      const { info } = repository;
      return {
        data: info,
        text: () =>
          [
            `created the repository ${context.style.bold(info.repository_id.slice(0, 8))} in ${printable(info.location)}`,
            "keep the password: without it the repository can never be read",
          ].join("\n"),
      };
    } finally {
      await repository.close();
    }
  },
};
