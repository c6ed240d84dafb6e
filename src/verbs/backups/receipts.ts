import { number, object, type Of, opt, orNull, rows, text } from "../../contract/schema.ts";
import { VerifyReceiptResult } from "../../contract/snapshots.ts";
import { arg } from "../../contract/verb.ts";
import { pointId, WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const ListedReceipt = object({
  name: text("the file's name"),
  file: text("the file, absolute"),
  made_at: text(),
  repository_id: text(),
  snapshot_id: text(),
  target: text("the folder into which the snapshot was restored"),
});
export type ListedReceipt = Of<typeof ListedReceipt>;
export const VerificationDebt = object({
  repository: text("the repository's address, without a password"),
  repository_id: text(),
  backups: number("backups that this machine has recorded, each save point once"),
  unproven: number("those of them that no receipt with this user's signature proves"),
  proven_at: orNull(text("when a backup was last proven; null: never")),
  verified_at: orNull(text("when the repository was last verified by the schedule without damage; null: never")),
  owed: opt(
    rows(
      object({
        save_point_id: pointId(),
        created_at: orNull(text("when the save point was made; null: the folder has it no longer")),
      }),
      "at most ten save points whose backups are not proven, the last one backed up first",
    ),
  ),
  backed_up_at: text("when the newest backup was made"),
});
export type VerificationDebt = Of<typeof VerificationDebt>;
export const Receipts = object({
  receipts: rows(ListedReceipt, "the user's newest 100 about these repositories, newest first"),
  debt: rows(VerificationDebt, "a row for each repository"),
});
export type Receipts = Of<typeof Receipts>;

const RIGHTS = {
  by: "operators",
  unserved: "receipts are the records of a user, not of a daemon",
  forPage: true,
  looks: true,
  withoutFolder: true,
} as const;

export const receipts = workspaceVerb({
  about:
    "Lists your receipts of restores from the repositories of this folder, and how many of its backups nothing has proven.",
  options: WorkspaceCallOptions,
  output: Receipts,
  ...RIGHTS,
  run: async ({ workspace }) => (await import("./receipts.run.ts")).receipts(workspace),
});

export const checkReceipt = workspaceVerb({
  about: "Verifies one of your receipts by its name.",
  takes: [arg("name", text())],
  options: WorkspaceCallOptions,
  output: VerifyReceiptResult,
  errors: ["not_found", "damaged"],
  ...RIGHTS,
  run: async (_hand, name, options) =>
    (await import("../../backup/restore/receipt.ts")).verifyOwnReceipt(name, options),
});
