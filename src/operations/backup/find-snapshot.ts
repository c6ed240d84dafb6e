import { CairnError } from "../../errors.ts";
import type { Snapshot } from "../../formats/snapshot.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { byTime, pointOf } from "./public-snapshot.ts";

const MAX_CANDIDATES = 20;

/**
 * The one snapshot that a word means: `latest`, an id, a unique prefix of one, or a save point's id or prefix (the newest
 * snapshot of it). `not_found`, `ambiguous`.
 */
export function findSnapshot(snapshots: readonly ListedSnapshot[], word: string): ListedSnapshot {
  const sorted = snapshots.toSorted(byTime);
  const newest = sorted.at(-1);
  if (newest === undefined)
    throw new CairnError("not_found", "the repository has no snapshots", { hint: "make one: `cairn backup create`" });
  if (word === "latest") return newest;
  if (!/^[0-9a-f]{2,64}$/.test(word))
    throw new CairnError("not_found", `no snapshot ${JSON.stringify(word.slice(0, 80))}`, { hint: WORDS });
  const fits = sorted.filter(({ id }) => id.startsWith(word));
  if (fits.length === 1) return fits[0]!;
  if (fits.length === 0) {
    const ofPoints = sorted.filter(({ snapshot }) => pointOf(snapshot)?.startsWith(word) === true);
    const points = new Set(ofPoints.map(({ snapshot }) => pointOf(snapshot)));
    if (points.size === 1) return ofPoints.at(-1)!;
    if (points.size === 0) throw new CairnError("not_found", `no snapshot ${word}`, { hint: WORDS });
  }
  throw new CairnError("ambiguous", `${word} fits more than one snapshot`, {
    hint: "give more digits",
    details: { candidates: fits.slice(0, MAX_CANDIDATES).map(({ id }) => id) },
  });
}

/** The newest snapshot of the same host and paths, whoever made it. */
export function newestOfSame(
  snapshots: readonly ListedSnapshot[],
  { hostname, paths }: Pick<Snapshot, "hostname" | "paths">,
): ListedSnapshot | null {
  const same = snapshots.filter(
    ({ snapshot }) => snapshot.hostname === hostname && snapshot.paths.join("\0") === paths.join("\0"),
  );
  return same.toSorted(byTime).at(-1) ?? null;
}

const WORDS =
  "a snapshot is named by its id, a unique prefix of it, `latest`, or a save point's id; see `cairn backup list`";
