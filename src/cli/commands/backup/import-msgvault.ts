import type { CommandDefinition } from "../../command.ts";
import { usage } from "../../input.ts";
import { formatBytes, plural, printable } from "../../render/format.ts";

export const command: CommandDefinition = {
  name: "backup import-msgvault",
  arguments: [
    { name: "<repository>", text: "the folder of a msgvault repository", completes: "folders" },
    { name: "[snapshot]", text: "id of the snapshot, or its beginning; default: the newest one" },
  ],
  options: [{ flags: "--to <dir>", text: "the new folder, absent or empty" }],
  examples: [
    {
      line: "cairn backup import-msgvault /mnt/backups/msgvault --to ~/mail",
      text: "the database, attachments and other files of the newest snapshot",
    },
  ],
  async run(context, input) {
    const to = input.text("to");
    if (to === undefined) throw usage("name the new folder with --to");
    const snapshot = input.argument(1);
    const library = await context.library();
    const result = await library.importMsgvault(context.absolute(input.required(0)), context.place(to), {
      ...context.callOptions(),
      ...(snapshot === undefined ? {} : { snapshot }),
    });
    return {
      data: result,
      text() {
        const { style } = context;
        const { path, snapshot_id, files, bytes, database } = result;
        const proof =
          database === null
            ? "its stream is in the file metadata"
            : `SQLite found no damage in ${plural(database.pages, "page")}${database.statistics === "equal" ? ", and the statistics are those of the snapshot" : ""}`;
        return `${style.green("imported")} ${snapshot_id}: ${plural(files, "file")} and the database, ${formatBytes(bytes)}, into ${printable(path)}\n  ${proof}`;
      },
    };
  },
};
