import { CairnError, reworded, toCairnError } from "../../errors.ts";
import { plural } from "../../formats/sizes.ts";
import { displayPath, printablePath } from "../../fs/safe-path.ts";
import { BlobIndex } from "../../repository/blob-index.ts";
import type { RepositoryLock } from "../../repository/locks.ts";
import type { CallOptions, PathPattern, RewriteBackupsOptions, RewriteBackupsResult } from "../contract.ts";
import { fitting } from "./chosen-paths.ts";
import { type Look, lookingBy } from "./look.ts";
import { REWRITTEN } from "./public-snapshot.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import {
  forgetRewritten,
  type Rewriting,
  type Rewritten,
  SnapshotRewriter,
  type TakesOut,
} from "./snapshot-rewriter.ts";

/** New snapshots in the place of others, by a {@link SnapshotRewriter}; with `forget` the others go. */
export async function rewriteSnapshots(
  access: RepositoryAccess,
  options: CallOptions,
  { rewriting, isPlan, forget }: { rewriting: Rewriting; isPlan: boolean; forget: boolean },
): Promise<Rewritten> {
  const run = async (lock: RepositoryLock | null): Promise<Rewritten> => {
    const index = await BlobIndex.load(access.repository, null, options.signal);
    const work = async (look: Look): Promise<Rewritten> =>
      new SnapshotRewriter({ ...look, access, options, rewriting, lock }).run();
    return lookingBy(access, index, { options, work });
  };
  if (isPlan) return access.reading(options, async () => run(null));
  if (forget) access.repository.requireRemovals();
  const done = await access.locked(false, options, async (lock) => run(lock));
  if (forget) await withoutOld(access, done, options);
  return done;
}

async function withoutOld(access: RepositoryAccess, { rewritten }: Rewritten, options: CallOptions): Promise<void> {
  try {
    await forgetRewritten(access, rewritten, options);
  } catch (error) {
    const known = toCairnError(error);
    const made = plural(rewritten.filter(({ newId }) => newId !== null).length, "new snapshot");
    throw reworded(known, { message: `${made} made, but not all of the old ones are gone: ${known.message}` });
  }
}

/**
 * Takes what fits a pattern out of snapshots: new ones are made without it, and with `forget` the old ones go. What is taken
 * out is listed in a new one as what it lacks.
 */
export async function rewriteBackups(
  access: RepositoryAccess,
  options: RewriteBackupsOptions,
): Promise<RewriteBackupsResult> {
  const started = Date.now();
  const { dryRun = false, forget = false } = options;
  const takesOut = takesOutOf(options.exclude);
  const done = await rewriteSnapshots(access, options, {
    rewriting: { choice: options, tag: REWRITTEN, takesOut },
    isPlan: dryRun,
    forget,
  });
  return {
    ...access.info,
    dry_run: dryRun,
    rewritten: done.rewritten.map(({ listed, lost, newId }) => ({
      snapshot_id: listed.id,
      created_at: listed.snapshot.time,
      new_id: newId,
      forgotten: forget && !dryRun,
      taken_out: lost.map(({ path, kind }) => ({ ...displayPath(path), kind })),
    })),
    unchanged: done.others,
    unreadable: done.unreadable,
    lacking: done.lacking,
    duration_ms: Date.now() - started,
  };
}

function takesOutOf(exclude: readonly PathPattern[]): TakesOut {
  const patterns = exclude.map((given) => {
    const pattern = fitting(given);
    const text = typeof given === "string" ? given : given.pattern;
    if (pattern.fits("/")) throw everything(`everything fits ${JSON.stringify(text)}`);
    return { ...pattern, text, met: { below: false, whole: false } };
  });
  if (patterns.length === 0) throw new CairnError("usage", "what is to be taken out?", { hint: "--exclude PATTERN" });
  return {
    isName: patterns.every(({ isName }) => isName),
    fits: (path) => patterns.some(({ fits, met }) => fits(path) && (met.below = true)),
    fitsWhole: (path) => patterns.some(({ fitsWhole, met }) => fitsWhole(path) && (met.whole = true)),
    requireNot(path) {
      if (!patterns.some(({ fitsWhole }) => fitsWhole(path))) return;
      throw everything(`${printablePath(Buffer.from(path, "latin1"))} is what was saved, or above it`);
    },
    requireOneWay() {
      const both = patterns.find(({ met }) => met.below && met.whole);
      if (both === undefined) return;
      throw new CairnError(
        "usage",
        `${JSON.stringify(both.text)} fits one thing from what was saved, and another as a whole path`,
        {
          hint: "leave the slash before it out: then it is the end of a path",
        },
      );
    },
  };
}

function everything(why: string): CairnError {
  return new CairnError("usage", `${why}: nothing would be left`, {
    hint: "a snapshot goes by `cairn backup forget`",
  });
}
