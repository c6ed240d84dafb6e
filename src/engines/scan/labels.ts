import { joinPath } from "../../formats/bytes.ts";
import type { ConsistencyLabel } from "../../formats/descriptor.ts";
import { recordPath } from "../../formats/record.ts";
import { IGNORE_FILE, MAX_IGNORE_FILE_BYTES } from "../../fs/ignore.ts";
import type { ScanNotes } from "./task.ts";

/** Of an ignore file that hides nothing, though it lies there. */
export const RULES_NOT_APPLIED = "rules-not-applied";
const LONG = `it has more than ${MAX_IGNORE_FILE_BYTES} bytes, so what it may hide is saved too`;

/** What a scan says of entries that were not whole and at rest when they were read, or do not count as what they are. */
export function labelsOf({ torn, longRules }: Pick<ScanNotes, "torn" | "longRules">): ConsistencyLabel[] {
  return [
    ...torn.map(({ path, reason, aspects }) => ({
      ...recordPath(path),
      label: "torn-possible",
      reason,
      ...(aspects === undefined ? {} : { aspects: [...aspects] }),
    })),
    ...longRules.map((directory) => ({
      ...recordPath(joinPath(directory, Buffer.from(IGNORE_FILE))),
      label: RULES_NOT_APPLIED,
      reason: LONG,
    })),
  ];
}
