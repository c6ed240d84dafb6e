import { existsSync } from "node:fs";
import { toCairnError } from "../../errors.ts";
import { NO_RULES } from "../../fs/ignore.ts";
import { newSavePointId } from "../../ids.ts";
import { newPacer } from "../../pacer.ts";
import { failpoint } from "../../failpoint.ts";
import { statCachePath } from "../place/control-layout.ts";
import { type HeldPoint, holdPoint, settleHeld, whyNotHeld } from "../save/capture.ts";
import { folderSide, HeldComparison, heldSide, holdsSuperJournal } from "../save/compare-held.ts";
import { beforeRestore, neverRead } from "../points/point-files.ts";
import { isSameRoot, rootOfFolder, rootOfPoint } from "../points/root-changes.ts";
import { scanRequest } from "../save/scan-request.ts";
import type { Workspace } from "../open/workspace.ts";
import { PackedList } from "../points/packed-list.ts";
import { groupOf, linksOf } from "../rules/links.ts";
import { MadeContents } from "../rules/made-contents.ts";
import type { Plan, PlannedEntry } from "../rules/plan.ts";
import { planAbsolute, type PlannedRestore } from "./planned.ts";
import type { RestoreInput } from "./prepare.ts";
import { unknownIn } from "./protected.ts";

/**
 * Restores an unsealed point entry by entry, without a store. Inodes tell the differences, a clone holds the present,
 * and files are cloned from the point. Not with ignore rules (a clone has hidden files) or a multi-database SQLite
 * transaction.
 */

/** Cloning an entry takes about as long as reading this many bytes. */
const BYTES_PER_ENTRY = 4096;

/** Tells why the restore cannot be planned from the clones, as far as the point and the engine show; else null. */
export function whyNotPlannedHeld(workspace: Workspace, input: RestoreInput): string | null {
  const { engine } = workspace;
  const { complete, rules } = input.target.descriptor;
  if (engine.holder === null) return "the engine makes no clones";
  if (input.plan !== undefined) return "a plan is compared with the sealed point";
  if (input.change.isRelative) return "only trees of sealed points tell which entries were edited since";
  if (workspace.unfinished("missing-folder").isBegun) return "the folder was made for this restore";
  if (!complete || rules.exclude.length > 0) return "the point lacks entries that its clone may have";
  return whyNotHeld(workspace, input);
}

/**
 * Plans the restore and holds the present. Returns "same" if nothing has to change, or null if the point must be sealed
 * and the present read. The caller holds the workspace's lock.
 */
export async function planHeld(workspace: Workspace, input: RestoreInput): Promise<PlannedRestore | "same" | null> {
  const { root } = workspace;
  const { target, change } = input;
  if (change.isRelative) return null;
  const held = heldSide(workspace, target);
  if (held === null) return null;
  const present = folderSide(scanRequest(workspace, {}, { rules: NO_RULES }));
  const compared = await HeldComparison.of(workspace, held, present, input);
  if (!isWhole(compared) || holdsSuperJournal(compared)) return null;
  const { scan, to, from } = compared;
  const facts = { scan, ...unknownIn(workspace, null) };
  const fields = { before: scan.summarise().lossless, after: compared.firstScan.summarise().lossless };
  const { plan: all, unasked } = await planAbsolute({ ...input, change }, { present: to, target: from, fields }, facts);
  const { plan, same } = await withoutSame(all, compared, input);
  const isSame = !change.isOfFolder || isSameRoot(rootOfPoint(target), rootOfFolder(root));
  if (plan.length === 0 && isSame) return "same";
  if (isSoonerRead(workspace, scan, plan)) return null;
  const undo = await holdPresent(workspace, input);
  if (undo === null) return null;
  // Unchanged group members are link targets too, like the entries that were never listed.
  const right = same.map((each) => ({ ...each, aspects: [] }));
  const links = linksOf({ plan, unasked: [...right, ...unasked], target: from, source: to, scan });
  // A file that cannot be cloned would be read: then the point must be sealed.
  const content = (): never => {
    throw neverRead(target);
  };
  return {
    plan,
    refs: [],
    links,
    target: { ...from, content },
    manifest: null,
    damaged: [],
    scan,
    merged: [],
    made: new MadeContents(),
    own: null,
    holes: new Map(),
    undo: undo.point,
  };
}

/** Tells if neither tree lacks an entry, for any reason. */
function isWhole({ scan, firstScan }: HeldComparison): boolean {
  return [scan, firstScan].every(
    ({ notes }) =>
      notes.ignoredCount === 0 &&
      notes.ignoreFiles.length === 0 &&
      [notes.omitted, notes.torn, notes.mounts, notes.longRules].every((list) => list.length === 0),
  );
}

/** Tells if reading the changed files takes less time than an entry-by-entry clone of the folder. */
function isSoonerRead({ engine, found }: Workspace, scan: HeldComparison["scan"], plan: Plan): boolean {
  if (engine.holder?.atomic === true) return false;
  const { entries, bytes } = scan.summarise();
  const count = entries.files + entries.directories + entries.links + entries.other;
  // Without a stat cache the whole folder would be read.
  const isKnown = existsSync(statCachePath(found.control, found.workspace.id));
  return (isKnown ? bytesOf(plan) : bytes) < count * BYTES_PER_ENTRY;
}

/** Sums the sizes of files that differ, in the present and in the target. */
function bytesOf(plan: Plan): number {
  return Iterator.from(plan).reduce(
    (sum, { before, after }) =>
      sum + (before?.type === "file" ? before.size : 0) + (after?.type === "file" ? after.size : 0),
    0,
  );
}

/** Takes out files whose inodes differ and whose content is equal. `same`: those that have several names. */
async function withoutSame(
  all: Plan,
  compared: HeldComparison,
  { signal }: RestoreInput,
): Promise<{ plan: Plan; same: PlannedEntry[] }> {
  const pace = newPacer(signal);
  const plan = new PackedList<PlannedEntry>();
  const same: PlannedEntry[] = [];
  for (const entry of all) {
    const isOpen = entry.action === "update" && entry.aspects.length === 1 && entry.aspects[0] === "content";
    const isSame = isOpen && (await compared.hasSameContent(entry, pace));
    if (!isSame) plan.push(entry);
    else if (groupOf(entry.after) !== 0n) same.push(entry);
  }
  return { plan, same };
}

/** Makes a point that holds the whole present. Returns null if the file system or a permission prevents that. */
async function holdPresent(workspace: Workspace, input: RestoreInput): Promise<HeldPoint | null> {
  const { target, kind, cause } = input;
  const holder = workspace.engine.holder!;
  const said = beforeRestore(kind, target.descriptor.save_point_id, cause);
  let held: HeldPoint;
  try {
    held = await holdPoint(
      workspace,
      { ...input, ...said },
      { holder, from: workspace.root, id: newSavePointId(), undo: true },
    );
  } catch (error) {
    const { code } = toCairnError(error);
    if (code !== "unsupported" && code !== "permission") throw error;
    return null;
  }
  failpoint("restore.present-held");
  settleHeld(workspace, held);
  return held;
}
