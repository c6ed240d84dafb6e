import { ImportMsgvaultOptions, ImportMsgvaultResult } from "../../contract/msgvault.ts";
import { place } from "../../contract/schema.ts";
import { BackupList } from "../../contract/snapshots.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

const repository = () => arg("from", place("a msgvault repository"));

export const importMsgvault = libraryVerb({
  about:
    "Restores a snapshot of a msgvault repository into an absent or empty folder. Reads and compares everything first, and lets SQLite check the database.",
  takes: [repository(), arg("folder", place("the new folder, absolute"))],
  options: ImportMsgvaultOptions,
  output: ImportMsgvaultResult,
  errors: ["not_found", "ambiguous", "damaged", "newer_version", "unsupported", "already_exists", "refused"],
  command: "backup import-msgvault",
  run: async (_hand, ...given) => (await import("../../change/import-msgvault.ts")).importMsgvault(...given),
});

export const listMsgvault = libraryVerb({
  about: "Lists the snapshots of a msgvault repository, oldest first.",
  takes: [repository()],
  options: CallOptions,
  output: BackupList,
  errors: ["not_found", "damaged", "newer_version", "unsupported"],
  run: async (_hand, from) => (await import("../../change/import-msgvault.ts")).listMsgvault(from),
});
