import { bundles } from "./bundles.ts";
import type { BenchCase } from "../bench.ts";
import { backupS3, backupSftp } from "./backup-far.ts";
import { backupFirstHeld } from "./backup-first-held.ts";
import { backupFirst } from "./backup-first.ts";
import { backupMany } from "./backup-many.ts";
import { backupMemory } from "./backup-memory.ts";
import { backupPrune } from "./backup-prune.ts";
import { backupRestore } from "./backup-restore.ts";
import { backupSize } from "./backup-size.ts";
import { backupUnchanged } from "./backup-unchanged.ts";
import { backupVerify } from "./backup-verify.ts";
import { backupWide } from "./backup-wide.ts";
import { engineLatency } from "./engine-latency.ts";
import { reflinkClone, reflinkLarge } from "./reflink-clone.ts";
import { snapshots } from "./snapshots.ts";
import { exportDirectory } from "./export-directory.ts";
import { firstSave } from "./first-save.ts";
import { fullRestore } from "./full-restore.ts";
import { machines } from "./machines.ts";
import { manyPoints, manyTurns } from "./many-points.ts";
import { memory } from "./memory.ts";
import { onePercent } from "./one-percent.ts";
import { page } from "./page.ts";
import { restoreChanges } from "./restore-changes.ts";
import { service } from "./service.ts";
import { sqliteClustered, sqliteRandom } from "./sqlite.ts";
import { startUp } from "./start-up.ts";
import { storeSize } from "./store-size.ts";
import { unchanged } from "./unchanged.ts";
import { verify } from "./verify.ts";

/** Cases in running order: cases that need a store with one point come before cases that add points and edit the data. */
export const CASES: readonly BenchCase[] = [
  firstSave,
  memory,
  storeSize,
  verify,
  fullRestore,
  unchanged,
  onePercent,
  restoreChanges,
  startUp,
  manyPoints,
  manyTurns,
];

/** Engines that hold whole trees, each on its own file system; needs root. */
export const ENGINE_CASES: readonly BenchCase[] = [snapshots, reflinkClone, reflinkLarge, engineLatency];

/** Repositories on other machines. The last cases with data edit the data. */
export const REPOSITORY_CASES: readonly BenchCase[] = [
  backupFirst,
  backupFirstHeld,
  backupMemory,
  backupSize,
  backupVerify,
  backupRestore,
  backupUnchanged,
  backupS3,
  backupSftp,
  backupPrune,
  backupMany,
  backupWide,
];

/** Live databases in backups. */
export const SQLITE_CASES: readonly BenchCase[] = [sqliteRandom, sqliteClustered];

/** Context stores as bundles. */
export const BUNDLE_CASES: readonly BenchCase[] = [bundles];

/** Machines and export directories. */
export const MACHINE_CASES: readonly BenchCase[] = [machines, exportDirectory];

/** The daemon over its socket. */
export const SERVICE_CASES: readonly BenchCase[] = [service];

/** Cases of docs/benchmarks.md: each has a bar against the newest programs that do the same. */
export const SHOWN_CASES: readonly BenchCase[] = [
  firstSave,
  memory,
  verify,
  fullRestore,
  backupRestore,
  unchanged,
  onePercent,
  backupMany,
  backupWide,
];

/** Cases whose ratios to the peers are compared with those of the last release. */
export const RATCHET_CASES: readonly BenchCase[] = [firstSave, verify, fullRestore, backupRestore, unchanged];

/** The page of `cairn ui` in a browser. */
export const PAGE_CASES: readonly BenchCase[] = [page];
