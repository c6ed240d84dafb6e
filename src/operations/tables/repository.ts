import { addAgeKey } from "../../backup/age-password.ts";
import { catBackup } from "../../backup/cat.ts";
import { createFromPaths } from "../../backup/create/create-from-paths.ts";
import { createFromStream } from "../../backup/create/create-from-stream.ts";
import { diffBackups } from "../../backup/diff.ts";
import { findInBackups } from "../../backup/find.ts";
import { addKey, changePassword, listKeys, removeKey, unlock } from "../../backup/keys.ts";
import { restoreBackup } from "../../backup/restore/restore.ts";
import { readFromBackup, showBackup, walkBackup } from "../../backup/show.ts";
import { listBackups } from "../../backup/open/snapshots.ts";
import { backupStats } from "../../backup/stats.ts";
import type { RepositoryRows } from "./row.ts";
import { checkCommand, processOutput } from "../run.ts";

/** Verbs of a repository but for those that look after it. */
export const REPOSITORY_ROWS = {
  list: listBackups,
  createFromPaths,
  createFromStream,
  createFromCommand(access, command, options) {
    checkCommand(command);
    const { cwd = process.cwd(), signal } = options;
    return createFromStream(access, processOutput({ command, cwd, signal }), options);
  },
  restore: (access, snapshot, to, options) => restoreBackup(access, { snapshot, to }, options),
  keys: listKeys,
  addKey,
  addAgeKey,
  removeKey,
  changePassword,
  stats: backupStats,
  find: findInBackups,
  diff: (access, from, to, options) => diffBackups(access, { from, to }, options),
  show: (access, snapshot, path, options) => showBackup(access, { snapshot, path: path ?? "" }, options),
  cat: (access, kind, id, options) => catBackup(access, { kind, id }, options),
  unlock,
  walk: async (access, hand, snapshot, path, options) =>
    walkBackup(access, { snapshot, path: path ?? "", hand }, options),
  read: async (access, hand, snapshot, path, options) => readFromBackup(access, { snapshot, path, hand }, options),
} satisfies Partial<RepositoryRows>;
