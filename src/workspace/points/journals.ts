import path from "node:path";
import { advice, call } from "../../errors.ts";
import { type UnfinishedWork, type WorkKind, workOf } from "../../formats/records/unfinished.ts";
import { ORDERED, Unfinished } from "../../fs/unfinished.ts";
import { decodeSteps } from "./steps.ts";

/**
 * Kinds of work whose record is not flushed. If a power cut loses it, the work has no effect, or only needs some space: on
 * btrfs the exchange of two trees makes an earlier record durable.
 */
const ORDERED_KINDS: ReadonlySet<WorkKind> = new Set(["conversion", "exchange", "seal"]);

/** Names of the records of earlier builds, if they differ. That of a seal is ignored: a seal that was killed costs only space. */
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
