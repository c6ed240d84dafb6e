import { place } from "../../contract/schema.ts";
import { VerifyReceiptOptions, VerifyReceiptResult } from "../../contract/snapshots.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const verifyReceipt = libraryVerb({
  about: "Verifies a receipt that a restore wrote.",
  takes: [arg("path", place())],
  options: VerifyReceiptOptions,
  output: VerifyReceiptResult,
  errors: ["damaged", "conflict"],
  command: "receipt verify",
  run: async (_hand, path, options) => (await import("../../backup/restore/receipt.ts")).verifyReceipt(path, options),
});
