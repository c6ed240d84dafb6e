import { type OpenedReceipt, receiptSince } from "../../backup/restore/receipt.ts";
import type { Client, RestoreInPlaceResult, RestoreResult, SaveResult } from "../../contract/index.ts";
import type { RepositoryInfo, RestoredSnapshot } from "../../contract/snapshots.ts";
import type { Verb } from "../../contract/verb.ts";
import type { SavePoint } from "../../contract/words.ts";
import { advice, CairnError, call, toCairnError } from "../../errors.ts";

/**
 * A call with an idempotency key may be done although a kill interrupted it. The cause of the point that a save, a
 * restore or an undo makes has the call's digest, which proves it.
 */
export interface Asked {
  /** Digest of the caller, the key, the verb and its body. */
  request: string;
  /** If an earlier call with this key ended in an unknown state: its start, in milliseconds since 1970. Else null. */
  since: number | null;
}

type Options = Readonly<Record<string, unknown>>;

/** Milliseconds by which a clock may have been set back meanwhile. */
const SLACK_MS = 60_000;

/** Adds the digest to the cause of the point that the call makes. */
export function carriesRequest({ makesPoint }: Verb, options: Options | undefined, { request }: Asked): Options {
  if (makesPoint === undefined) return options ?? {};
  const cause = (options?.["cause"] ?? { kind: "person" }) as object;
  return { ...options, cause: { ...cause, request } };
}

/**
 * Returns the answer of a call that was done before, read from its point; null if the call must still run. The caller
 * has the workspace's turn. Throws `conflict` if neither is certain.
 */
export async function doneBefore(
  client: Client,
  { name, makesPoint }: Pick<Verb, "makesPoint"> & { name: string },
  { request, since }: Asked,
): Promise<SaveResult | RestoreResult | RestoreInPlaceResult | null> {
  if (since === null || makesPoint === undefined) return null;
  // planUndo finishes or takes back a restore that was killed.
  if (makesPoint === "undo") await client.planUndo().catch(ignoreNothing);
  const from = new Date(since - SLACK_MS).toISOString();
  const { save_points: found } = await client.history(undefined, 1, { all: true, grep: request, since: from });
  const point = found.find(({ cause }) => cause["request"] === request);
  if (makesPoint === "save") return point === undefined ? null : { ...point, ...UNKNOWN_OF_SAVE };
  const [last] = (await client.operations()).operations;
  if (last === undefined) return null;
  if (point !== undefined && last.undo_id === point.save_point_id) return wentBack(client, point);
  // The last operation is older than this call, or than the undo point of this call.
  if (Date.parse(last.at) < (point === undefined ? since : Date.parse(point.created_at))) return null;
  throw new CairnError("conflict", `cannot tell whether this ${name} was done: a restore or an undo was made since`, {
    hint: advice`look at ${call("operations")}, and repeat the call with another idempotency key`,
  });
}

function ignoreNothing(error: unknown): void {
  if (toCairnError(error).code !== "nothing_to_undo") throw error;
}

const UNKNOWN_OF_SAVE = {
  made: true,
  changes: null,
  read_bytes: 0,
  duration_ms: 0,
  left_out: [],
  not_kept: { count: 0, paths: [] },
  secrets: null,
  rows: [],
};

/** A restore from a backup records in the cause which backup it was. Its proof is in the receipt. */
function wentBack(
  client: Client,
  { save_point_id: undoId, cause, created_at: since }: SavePoint,
): RestoreResult | RestoreInPlaceResult {
  const result: RestoreResult = {
    restored_to: (cause["restored_to"] ?? null) as RestoreResult["restored_to"],
    undo_id: undoId,
    changes: null,
    left_out: [],
    unlinked: [],
    method: "entries",
    duration_ms: 0,
  };
  if (cause["backup"] === undefined) return result;
  const backup = cause["backup"] as RepositoryInfo & RestoredSnapshot;
  const target = client.workspacePath();
  return {
    ...backup,
    ...result,
    ...UNKNOWN_OF_BACKUP,
    target,
    ...provenOf(receiptSince(since, { ...backup, target })),
  };
}

/** The databases are in the receipt, with fewer facts than a proof has. */
function provenOf(receipt: OpenedReceipt | null): Partial<RestoreInPlaceResult> {
  if (receipt === null) return {};
  const { state_digest, metadata_equal, rows = [], probes = [], read_from = "disk" } = receipt.body;
  const counts = rows.map((each) => ({ ...each, files: [] }));
  const proof = { state_digest, metadata_equal, databases: [], rows: counts, probes, receipt: receipt.file };
  return { proof, read_again: true, read_from, untold_files: 0 };
}

const UNKNOWN_OF_BACKUP = {
  dry_run: false,
  plan_id: null,
  planned_entries: null,
  stored_bytes: null,
  proof: null,
  read_again: false,
  read_from: null,
  untold_files: null,
};
