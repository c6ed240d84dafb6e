import { RepairSnapshotsOptions, RepairSnapshotsResult } from "../../contract/snapshots.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const repairSnapshots = repositoryVerb({
  about: "Makes new snapshots of those that lack something, without it.",
  options: RepairSnapshotsOptions,
  output: RepairSnapshotsResult,
  errors: ["refused", "busy"],
  command: "backup repair snapshots",
  run: async (...given) => (await import("../../backup/care/rewrite.ts")).repairSnapshots(...given),
});
