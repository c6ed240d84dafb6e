import { ReadBackupOptions, lookErrors, snapshot } from "../../contract/repositories.ts";
import { custom, number, object, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { NamedPath, PathInput } from "../../contract/words.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const read = repositoryVerb({
  about:
    "Reads a file in the pieces in which it was saved, or a folder as an archive. Holds a shared lock meanwhile. If the read fails, the archive lacks its end marker.",
  takes: [arg("snapshot", snapshot()), arg("path", PathInput)],
  options: ReadBackupOptions,
  output: custom<Uint8Array>("Uint8Array", "bytes", (value) => value instanceof Uint8Array),
  command: {
    "backup restore --to-command": object({
      snapshot_id: text(),
      path: NamedPath.entries.path,
      bytes: number("bytes that the command read"),
      unread_bytes: number("not 0: exit 10"),
    }),
  },
  how: "stream",
  errors: [...lookErrors, "conflict"],
  run: async (access, hand, snapshot, path, options) =>
    (await import("../../look/backups.ts")).readFromBackup(access, { snapshot, path, hand }, options),
});
