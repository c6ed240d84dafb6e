import { checkCalls } from "../contract/checked-calls.ts";
import { type BackupRepository, REPOSITORY_VERBS } from "../contract/repositories.ts";
import type { CallOptions } from "../contract/words.ts";
import type { RepositoryInfo } from "../contract/snapshots.ts";
import type { Call, Method } from "../contract/verb.ts";
import { CairnError } from "../errors.ts";
import { handedOver } from "./handed-over.ts";
import { checkCommand, processOutput } from "./run.ts";
import { addAgeKey } from "../backup/age-password.ts";
import { catBackup } from "../backup/cat.ts";
import { copyBackups } from "../backup/care/copy.ts";
import { createFromStream } from "../backup/create-from-stream.ts";
import { diffBackups } from "../backup/diff.ts";
import { findInBackups } from "../backup/find.ts";
import { forgetBackups } from "../backup/care/forget.ts";
import { addKey, changePassword, listKeys, removeKey, unlock } from "../backup/keys.ts";
import type { OpenRepository } from "../backup/open-repository.ts";
import { pruneBackups } from "../backup/care/prune.ts";
import { recoverBackups } from "../backup/care/recover.ts";
import { repairBackups } from "../backup/care/repair.ts";
import { restoreBackup } from "../backup/restore/restore.ts";
import { verifyBackup } from "../backup/restore/restore-check.ts";
import { repairSnapshots, rewriteBackups } from "../backup/care/rewrite.ts";
import { readFromBackup, showBackup, walkBackup } from "../backup/show.ts";
import { listBackups } from "../backup/snapshots.ts";
import { backupStats } from "../backup/stats.ts";
import { tagBackups } from "../backup/care/tag.ts";

type Verbs = typeof REPOSITORY_VERBS;
type Streams = "walk" | "read";
type Piece<Name extends Streams> = ReturnType<Method<Verbs[Name]>> extends AsyncIterable<infer T> ? T : never;

/** Carries a verb out on the view of a repository that belongs to the call. */
const ROWS: {
  readonly [Name in Exclude<keyof Verbs, Streams>]: (
    access: OpenRepository,
    ...given: Call<Verbs[Name]>
  ) => ReturnType<Method<Verbs[Name]>>;
} = {
  list: listBackups,
  createFromStream,
  createFromCommand(access, command, options) {
    checkCommand(command);
    const { cwd = process.cwd(), signal } = options;
    return createFromStream(access, processOutput({ command, cwd, signal }), options);
  },
  verify: verifyBackup,
  restore: (access, snapshot, to, options) => restoreBackup(access, { snapshot, to }, options),
  forget: forgetBackups,
  tag: tagBackups,
  prune: pruneBackups,
  copyTo(access, target, options) {
    if (!(target instanceof OpenedRepository))
      throw new CairnError("usage", "copyTo wants a repository that this library has opened");
    return target.access.during(options, async (into) => copyBackups(access, into, options));
  },
  keys: listKeys,
  addKey,
  addAgeKey,
  removeKey,
  changePassword,
  repair: repairBackups,
  repairSnapshots,
  rewrite: rewriteBackups,
  recover: recoverBackups,
  stats: backupStats,
  find: findInBackups,
  diff: (access, from, to, options) => diffBackups(access, { from, to }, options),
  show: (access, snapshot, path, options) => showBackup(access, { snapshot, path: path ?? "" }, options),
  cat: (access, kind, id, options) => catBackup(access, { kind, id }, options),
  unlock,
};

/** Carries a verb out that hands over piece by piece. */
const STREAMS: {
  readonly [Name in Streams]: (
    access: OpenRepository,
    hand: (piece: Piece<Name>) => Promise<void>,
    ...given: Call<Verbs[Name]>
  ) => Promise<void>;
} = {
  walk: async (access, hand, snapshot, path, options) =>
    walkBackup(access, { snapshot, path: path ?? "", hand }, options),
  read: async (access, hand, snapshot, path, options) => readFromBackup(access, { snapshot, path, hand }, options),
};

type Run = (access: OpenRepository, ...given: unknown[]) => Promise<unknown>;

/** An open repository as the library gives it: its verbs are those of the contract. */
// oxlint-disable-next-line typescript/no-unsafe-declaration-merging
export interface OpenedRepository extends BackupRepository {}

export class OpenedRepository {
  /** @internal For operations that need more than one side. */
  readonly access: OpenRepository;

  constructor(access: OpenRepository) {
    this.access = access;
  }

  get info(): RepositoryInfo {
    return this.access.info;
  }

  async close(): Promise<void> {
    await this.access.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  static {
    const methods = OpenedRepository.prototype as unknown as Record<string, unknown>;
    for (const [name, run] of Object.entries(ROWS) as [string, Run][])
      methods[name] = async function (this: OpenedRepository, ...given: unknown[]) {
        return this.access.during(given.at(-1) as CallOptions, async (access) => run(access, ...given));
      };
    for (const [name, run] of Object.entries(STREAMS) as unknown as [string, Run][])
      methods[name] = function (this: OpenedRepository, ...given: unknown[]) {
        return handedOver(async (hand) =>
          this.access.during(given.at(-1) as CallOptions, async (access) => void (await run(access, hand, ...given))),
        );
      };
    checkCalls(OpenedRepository, REPOSITORY_VERBS);
  }
}
