/**
 * The files of the long tier, which `npm run test:long` runs. `npm test` runs all others: what must hold before anything lands.
 * Patterns are regular expressions of paths from the repository's root.
 */
export const LONG_TIER: readonly RegExp[] = [
  // Machines boot real guests; test/flows/machine-smoke.flow.test.ts stays.
  /^test\/flows\/machine(?:s|-access|-debian|-faults|-identity)\./,
  /^test\/crash\/machines\./,
  // Kills at samples of passes; test/crash/points-replay.flow.test.ts has every pass of a save that merges packs.
  /^test\/crash\/compaction\./,
  // A state costs half a second there; the replays of the copy engine and test/crash/btrfs.flow.test.ts stay.
  /^test\/crash\/btrfs-replay\./,
  // Sampled kills with a check by real restic after each; test/crash/repository-replay.flow.test.ts has every pass.
  /^test\/crash\/backup-care\./,
  /^src\/repository\/kill\./,
  // Pages that journeys, views, hostile, security, choice, activity, overview, turns and forks do not open.
  /^test\/page\/(?:long|addresses|odd-addresses|old-addresses|access|compared|notices)\./,
  /^test\/package\/(?:pack|release)\./,
  /^test\/flows\/(?:real-agents|real-agents-together|large-database|many-entries|full-disk|out-of-inodes|convert-user|migrate-ws-ckpt)\./,
  // Other programs. Real restic both ways, tar and the pages of SQLite stay.
  /^test\/interop\/(?!restic-both-ways\.|tar\.|sqlite-pages\.)/,
  /^src\/repository\/storage\/sftp\/(?:ssh|other-servers)\./,
  // Engines whose contract another file holds.
  /^test\/engines\/(?:juicefs-clone|juicefs-faults|btrfs-exchange|btrfs-displaced|btrfs-inside|btrfs-long-rules|databases)\./,
  /^src\/clones\/juicefs-/,
];

/** Returns whether `file`, a path from the repository's root, is of the long tier. */
export function isLong(file: string): boolean {
  return LONG_TIER.some((pattern) => pattern.test(file));
}

/** Returns `files` so that the first one depends on `commit`, a hash in hexadecimal: a run that ends early leaves out others each time. */
export function rotated(files: readonly string[], commit: string): string[] {
  if (files.length === 0) return [];
  const start = Number.parseInt(commit.slice(0, 8), 16) % files.length;
  return [...files.slice(start), ...files.slice(0, start)];
}
