import { copyBackups } from "../../backup/care/copy.ts";
import { forgetBackups } from "../../backup/care/forget.ts";
import { pruneBackups } from "../../backup/care/prune.ts";
import { recoverBackups } from "../../backup/care/recover.ts";
import { repairBackups } from "../../backup/care/repair.ts";
import { repairSnapshots, rewriteBackups } from "../../backup/care/rewrite.ts";
import { tagBackups } from "../../backup/care/tag.ts";
import { verifyBackup } from "../../backup/care/restore-check.ts";
import { accessOf } from "../opened-repository.ts";
import { orThrown } from "../verify.ts";
import type { RepositoryRows } from "./row.ts";

/** Verbs that look after a repository. */
export const CARE_ROWS = {
  verify: async (access, options) => orThrown(await verifyBackup(access, options), options),
  forget: forgetBackups,
  tag: tagBackups,
  prune: pruneBackups,
  copyTo: (access, target, options) =>
    accessOf("copyTo", target).during(options, async (into) => copyBackups(access, into, options)),
  repair: repairBackups,
  repairSnapshots,
  rewrite: rewriteBackups,
  recover: recoverBackups,
} satisfies Partial<RepositoryRows>;
