import { RepairSnapshotsOptions, RepairSnapshotsResult } from "../../contract/snapshots.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const repairSnapshots = repositoryVerb({
  about: "Replaces snapshots that have missing data by new snapshots without it.",
  options: RepairSnapshotsOptions,
  output: RepairSnapshotsResult,
  errors: ["refused", "busy"],
  command: "backup repair snapshots",
  run: async (...given) => (await import("../../backup/care/rewrite.ts")).repairSnapshots(...given),
});
