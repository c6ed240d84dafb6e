import type { ConsistencyLabel } from "../../formats/descriptor.ts";
import { recordPath } from "../../formats/record.ts";
import type { ScanNotes } from "./task.ts";

/** What a scan says of entries that were not whole and at rest when they were read. */
export function labelsOf({ torn }: Pick<ScanNotes, "torn">): ConsistencyLabel[] {
  return torn.map(({ path, reason }) => ({ ...recordPath(path), label: "torn-possible", reason }));
}
