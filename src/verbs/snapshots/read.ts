import { ReadBackupOptions, lookErrors, snapshot } from "../../contract/repositories.ts";
import { custom } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { PathInput } from "../../contract/words.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const read = repositoryVerb({
  about:
    "Reads a file, each piece as it was saved, or a folder as an archive; a shared lock is held meanwhile. An archive that ends in an error has no end.",
  takes: [arg("snapshot", snapshot()), arg("path", PathInput)],
  options: ReadBackupOptions,
  output: custom<Uint8Array>("Uint8Array", "bytes", (value) => value instanceof Uint8Array),
  how: "stream",
  errors: [...lookErrors, "conflict"],
  run: async (access, hand, snapshot, path, options) =>
    (await import("../../backup/show.ts")).readFromBackup(access, { snapshot, path, hand }, options),
});
