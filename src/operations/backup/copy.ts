import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { plural } from "../../formats/sizes.ts";
import { objectIdOf } from "../../ids.ts";
import type { RepositoryLock } from "../../repository/locks.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import type { CopyBackupsOptions, CopyBackupsResult } from "../contract.ts";
import { Bringing } from "./copy-content.ts";
import { readableSnapshots, warnOfUnreadable } from "./find-snapshot.ts";
import { keepKnownTrees, readKnownTrees } from "./known-trees.ts";
import { chosenSnapshots } from "./list.ts";
import { type Look, lookingBy } from "./look.ts";
import { indexWithout, lostIn, readFromWhatIsThere } from "./lost-packs.ts";
import type { RepositoryAccess } from "./repository-access.ts";

/**
 * Brings snapshots of one repository into another, whatever keys they have: blobs are opened, compared with their ids and
 * sealed anew. Steps: shared locks on both → packs → their index (at the latest every 64 packs or 30 s) → each snapshot's
 * file ●, oldest first. What was copied before is told by its origin and not copied again; a kill anywhere leaves whole
 * snapshots, and the next call goes on. One that has got a tag since is copied with it, beside the copy that lacks it: rules
 * there go by tags too. A copy that is there is passed over, but what the target lacks of it, or has lost, is stored. A snapshot that
 * lacks something that is lost or damaged is told, and the others are copied; `damaged` where all do and none is there.
 */
export async function copyBackups(
  from: RepositoryAccess,
  to: RepositoryAccess,
  options: CopyBackupsOptions,
): Promise<CopyBackupsResult> {
  const started = Date.now();
  if (from.repository.id === to.repository.id)
    throw new CairnError("usage", `${from.location} and ${to.location} are the same repository`);
  return from.reading(options, async () =>
    to.locked(false, options, async (lock) => {
      const listing = await from.repository.listSnapshots(options.signal);
      const wanted = chosenSnapshots(listing, options);
      warnOfUnreadable(from, listing.damaged, options);
      const copies = byIdentity(await readableSnapshots(to, options));
      const [missing, present] = [false, true].map((there) =>
        wanted.filter((listed) => isCopied(listed, copies) === there),
      ) as [ListedSnapshot[], ListedSnapshot[]];
      const source = await from.index(options.signal);
      await readFromWhatIsThere(from, source, options);
      const listed = await to.index(options.signal);
      const lost = await lostIn(to, listed, options.onWarning);
      const target = await indexWithout(to, { index: listed, lost }, options);
      // A copy that is there may have lost content since, and a repair have taken that out of the index.
      const whole = readKnownTrees(to.cache, target);
      const unproven = wanted.filter(({ snapshot }) => !whole.has(snapshot.tree));
      const work = async (look: Look): Promise<CopyBackupsResult> => {
        const bringing = new Bringing({ ...look, from, to, source, target, lock, options });
        const { added, lacking } = await bringing.all(unproven);
        const isWhole = ({ id }: ListedSnapshot): boolean => !lacking.has(id);
        warnOfLacking(
          to,
          present.filter((listed) => !isWhole(listed)),
          options,
        );
        const result = (copied: Copied): CopyBackupsResult => ({
          ...to.info,
          dry_run: options.dryRun === true,
          copied,
          not_copied: missing
            .filter((listed) => !isWhole(listed))
            .map(({ id }) => ({ snapshot_id: id, detail: lacking.get(id)!.message })),
          present: present.length,
          added,
          duration_ms: Date.now() - started,
        });
        const copies = missing.filter(isWhole);
        const [first] = lacking.values();
        if (first !== undefined && copies.length + present.length === 0) throw first;
        if (options.dryRun === true) return result(copies.map(({ id }) => ({ snapshot_id: id, new_id: null })));
        const copied = await saveCopies(to, copies, { lock, signal: options.signal });
        for (const { snapshot } of wanted) whole.delete(snapshot.tree);
        const proven = wanted.filter(isWhole).map(({ snapshot }) => snapshot.tree);
        keepKnownTrees(to.cache, target, [...proven.toReversed(), ...whole]);
        return result(copied);
      };
      return lookingBy(from, source, { options, work });
    }),
  );
}

type Copied = CopyBackupsResult["copied"];

/** A look around is as long as a snapshot's file takes; who stood still since the last one looks again. */
const LOOK_EVERY_MS = 1000;

/** The snapshots' own files, once all that they need is there. */
async function saveCopies(
  to: RepositoryAccess,
  missing: readonly ListedSnapshot[],
  { lock, signal }: { lock: RepositoryLock; signal: AbortSignal | undefined },
): Promise<Copied> {
  const copied: Copied = [];
  let lookedAt = Number.NEGATIVE_INFINITY;
  for (const { id, snapshot } of missing) {
    if (performance.now() - lookedAt > LOOK_EVERY_MS) {
      await lock.recheck();
      lookedAt = performance.now();
    }
    // Its parent is another one there, if it is there at all.
    const { parent: _parent, ...rest } = snapshot;
    if (signal?.aborted === true)
      throw new CairnError("interrupted", `stopped by the caller; ${plural(copied.length, "snapshot")} copied`, {
        cause: signal.reason,
      });
    const newId = await to.repository.saveSnapshot({ ...rest, original: snapshot.original ?? id });
    copied.push({ snapshot_id: id, new_id: newId });
    failpoint("copy.snapshot-written");
  }
  return copied;
}

function warnOfLacking(to: RepositoryAccess, lacking: readonly ListedSnapshot[], options: CopyBackupsOptions): void {
  if (lacking.length === 0) return;
  const names = lacking.slice(0, 20).map(({ id }) => id.slice(0, 8));
  options.onWarning?.(
    `${plural(lacking.length, "snapshot")} (${names.join(", ")}${lacking.length > names.length ? ", …" : ""}) are in ${to.location} already and lack something here: what they may lack there was not stored`,
  );
}

function byIdentity(snapshots: readonly ListedSnapshot[]): Map<string, ListedSnapshot[]> {
  const copies = new Map<string, ListedSnapshot[]>();
  for (const listed of snapshots)
    for (const key of identities(listed)) copies.set(key, [...(copies.get(key) ?? []), listed]);
  return copies;
}

/** Whether one of the copies has all of a snapshot's tags. */
function isCopied(listed: ListedSnapshot, copies: ReadonlyMap<string, readonly ListedSnapshot[]>): boolean {
  const tags = listed.snapshot.tags ?? [];
  return identities(listed).some((key) =>
    copies.get(key)?.some(({ snapshot }) => tags.every((tag) => snapshot.tags?.includes(tag) === true)),
  );
}

/** What two copies of one snapshot have in common: where they came from, with the content they had then. */
function identities({ id, snapshot }: ListedSnapshot): string[] {
  const origins = snapshot.original === undefined ? [id] : [id, snapshot.original];
  return origins.map((origin) => `${objectIdOf(Buffer.from(origin, "hex"))} ${snapshot.tree}`);
}
