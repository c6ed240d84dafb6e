import { lookErrors, snapshot } from "../../contract/repositories.ts";
import { about, flag, number, object, type Of, oneOf, opt, rows, text } from "../../contract/schema.ts";
import { RepositoryInfo } from "../../contract/snapshots.ts";
import { arg } from "../../contract/verb.ts";
import { Aspect, CallOptions, NamedPath, PathInput } from "../../contract/words.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const DiffBackupsOptions = object({
  ...CallOptions.entries,
  fromSubfolder: opt(about(PathInput, "compare only this folder of the first snapshot; paths are relative to it")),
  toSubfolder: opt(about(PathInput, "compare only this folder of the second snapshot")),
});
export type DiffBackupsOptions = Of<typeof DiffBackupsOptions>;
export const DiffBackupsEntry = object({
  ...NamedPath.entries,
  change: oneOf(["added", "removed", "modified"]),
  kind: text(),
  aspects: rows(Aspect, "aspects that differ; empty for added and removed"),
  size_before: opt(number()),
  size_after: opt(number()),
});
export type DiffBackupsEntry = Of<typeof DiffBackupsEntry>;
export const DiffBackupsResult = object({
  ...RepositoryInfo.entries,
  from: text(),
  to: text(),
  entries: rows(DiffBackupsEntry),
  truncated: flag(),
});
export type DiffBackupsResult = Of<typeof DiffBackupsResult>;

export const diff = repositoryVerb({
  about: "Compares two snapshots, or one folder of each.",
  takes: [arg("from", snapshot()), arg("to", snapshot())],
  options: DiffBackupsOptions,
  output: DiffBackupsResult,
  errors: [...lookErrors, "conflict"],
  command: "backup diff",
  run: async (access, from, to, options) => (await import("./diff.run.ts")).diffBackups(access, { from, to }, options),
});
