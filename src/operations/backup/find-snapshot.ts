import { CairnError } from "../../errors.ts";
import type { Snapshot } from "../../formats/snapshot.ts";
import type { DamagedFile, ListedSnapshot, SnapshotListing } from "../../repository/repository.ts";
import type { CallOptions } from "../contract.ts";
import { byTime, pointOf } from "./public-snapshot.ts";
import type { RepositoryAccess } from "./repository-access.ts";

const MAX_CANDIDATES = 20;

/**
 * The one snapshot that a word means: `latest`, an id, a unique prefix of one, or a save point's id or prefix (the newest
 * snapshot of it). `not_found`, `ambiguous`; `damaged` for one that cannot be read, and for `latest` while there are such:
 * any of them may be the newest.
 */
export function findSnapshot(listing: SnapshotListing, word: string): ListedSnapshot {
  const found = findSnapshotFile(listing, word);
  if ("snapshot" in found) return found;
  const { name, error } = found;
  throw new CairnError("damaged", `snapshot ${name.slice(0, 8)} cannot be read: ${error.message}`, {
    hint: `nothing else says what it held; ${removalHint([name])}`,
    cause: error,
    details: { snapshots: [name] },
  });
}

/** The same, but one that cannot be read is found by its id. */
export function findSnapshotFile({ snapshots, damaged }: SnapshotListing, word: string): ListedSnapshot | DamagedFile {
  const sorted = snapshots.toSorted(byTime);
  if (word === "latest" && damaged.length > 0) throw latestUnknown(damaged);
  const newest = sorted.at(-1);
  if (newest === undefined && damaged.length === 0)
    throw new CairnError("not_found", "the repository has no snapshots", { hint: "make one: `cairn backup create`" });
  if (word === "latest" && newest !== undefined) return newest;
  if (!/^[0-9a-f]{2,64}$/.test(word))
    throw new CairnError("not_found", `no snapshot ${JSON.stringify(word.slice(0, 80))}`, {
      hint: word.includes(":")
        ? `${WORDS}; \`cairn backup show\`, \`restore\` and \`diff\` take one with a path in it: ID:PATH`
        : WORDS,
    });
  const fits = [
    ...sorted.filter(({ id }) => id.startsWith(word)),
    ...damaged.filter(({ name }) => name.startsWith(word)),
  ];
  if (fits.length === 1) return fits[0]!;
  if (fits.length === 0) {
    const ofPoints = sorted.filter(({ snapshot }) => pointOf(snapshot)?.startsWith(word) === true);
    const points = new Set(ofPoints.map(({ snapshot }) => pointOf(snapshot)));
    if (points.size === 1) return ofPoints.at(-1)!;
    if (points.size === 0) throw new CairnError("not_found", `no snapshot ${word}`, { hint: WORDS });
  }
  throw new CairnError("ambiguous", `${word} fits more than one snapshot`, {
    hint: "give more digits",
    details: { candidates: fits.slice(0, MAX_CANDIDATES).map((file) => ("snapshot" in file ? file.id : file.name)) },
  });
}

function latestUnknown(damaged: readonly DamagedFile[]): CairnError {
  const names = damaged.map(({ name }) => name);
  return new CairnError(
    "damaged",
    `which snapshot is the latest is not known: ${shortNames(names)} cannot be read, and may be newer than all others`,
    {
      hint: `name a snapshot by its id (\`cairn backup list\` shows them), or ${removalHint(names)}`,
      cause: damaged[0]!.error,
      details: { snapshots: names },
    },
  );
}

/** How files of snapshots that cannot be read are got rid of. */
export function removalHint(names: readonly string[]): string {
  const words = names.length > MAX_CANDIDATES ? ["ID…"] : names.map((name) => name.slice(0, 8));
  return `remove what cannot be read: \`cairn backup forget ${words.join(" ")}\``;
}

function shortNames(names: readonly string[]): string {
  const shown = names.slice(0, MAX_CANDIDATES).map((name) => name.slice(0, 8));
  const more = names.length > shown.length ? ` and ${names.length - shown.length} more` : "";
  return `${names.length === 1 ? "snapshot" : "snapshots"} ${shown.join(", ")}${more}`;
}

/** Says of snapshots that cannot be read that the call goes on without them. */
export function warnOfUnreadable(
  { location }: Pick<RepositoryAccess, "location">,
  damaged: readonly DamagedFile[],
  { onWarning }: CallOptions,
): void {
  if (damaged.length === 0) return;
  const names = damaged.map(({ name }) => name);
  onWarning?.(`${shortNames(names)} of ${location} cannot be read and counts as absent; ${removalHint(names)}`);
}

/** The snapshots for a call that can do without those that cannot be read; a warning names them. */
export async function readableSnapshots(
  access: RepositoryAccess,
  options: CallOptions,
): Promise<readonly ListedSnapshot[]> {
  return readableOf(access, await access.repository.listSnapshots(options.signal), options);
}

/** Those of a listing that can be read; the others are told. */
export function readableOf(
  access: RepositoryAccess,
  { snapshots, damaged }: SnapshotListing,
  options: CallOptions,
): readonly ListedSnapshot[] {
  warnOfUnreadable(access, damaged, options);
  return snapshots;
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
