import path from "node:path";
import { advice, call } from "../../errors.ts";
import { type UnfinishedWork, type WorkKind, workOf } from "../../formats/records/unfinished.ts";
import { ORDERED, Unfinished } from "../../fs/unfinished.ts";
import { decodeSteps } from "./steps.ts";

/**
 * Kinds of work whose record is not flushed. If a power cut loses the record, the work is lost too, or leaves only
 * unneeded data: on btrfs the exchange of two trees makes an earlier record durable.
 */
const ORDERED_KINDS: ReadonlySet<WorkKind> = new Set(["conversion", "exchange", "seal"]);

/** Other names of records in earlier builds. A seal has none here: a killed seal leaves only unneeded data. */
const EARLIER: Partial<Record<WorkKind, string>> = {
  conversion: "convert",
  exchange: "exchange",
  "missing-folder": "folder",
  "removed-paths": "paths.json",
};

/** The record of work of one kind in the journal directory of a workspace. */
export function unfinishedIn<K extends WorkKind>(journal: string, kind: K): Unfinished<UnfinishedWork[K]> {
  const earlier = EARLIER[kind];
  const otherwise = advice`run ${call("doctor --repair", "doctor", { repair: true })}`;
  return new Unfinished(path.join(journal, `${kind}.json`), workOf(kind, otherwise), {
    ...(ORDERED_KINDS.has(kind) ? { carrier: ORDERED } : {}),
    ...(kind === "restore" ? { decodeSteps } : {}),
    ...(earlier === undefined ? {} : { earlier: path.join(journal, earlier) }),
  });
}
