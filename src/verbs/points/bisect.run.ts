import { checkCommand, runProcess } from "../../change/run.ts";
import type { SavePoint } from "../../contract/words.ts";
import { advice, CairnError, call, line, throwIfAborted, toCairnError, word } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { mountsInside } from "../../fs/linux/mounts.ts";
import { printablePath, quotedPath } from "../../fs/paths/safe-path.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import type { SavePointId } from "../../ids.ts";
import type { Opened } from "../../keep/hand.ts";
import { publicPoint } from "../../look/public-point.ts";
import { newPacer } from "../../pacer.ts";
import { howItComes } from "../../workspace/new-folder/first-point.ts";
import { endCommand, makeLayers, overFolder } from "../../workspace/new-folder/over-folder.ts";
import { placeCopy } from "../../workspace/new-folder/write-point.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import { neverRead, type Point } from "../../workspace/points/point-files.ts";
import { isAboutThePoint, withSealed } from "../../workspace/save/seal.ts";
import type { BisectOptions, BisectResult, BisectTest } from "./bisect.ts";
import { join } from "node:path";

export interface BisectInput {
  good: string;
  bad: string;
  command: readonly string[];
}

/** Exit status for a point that cannot be tested, as for `git bisect run`. */
const SKIP = 125;
/** The first exit status with which a shell reports a program that a signal ended. */
const FIRST_OF_SIGNALS = 128;
const FORK = line("fork POINT DIR", "fork", word("POINT"), word("DIR"));
const FREE_ROOM = "free some space there: each test writes its point into the control directory";

/**
 * Finds the first bad point between a good and a bad one. First tests these two, then one point after the other, each
 * at the folder's own path in a mount namespace. The content is in a temporary folder of the control directory. Removes
 * the folder at the end; after a kill the next command that takes the lock removes it.
 */
export async function bisect(
  { good, bad, command }: BisectInput,
  options: BisectOptions,
  within: Opened["within"],
): Promise<BisectResult> {
  checkCommand(command);
  const { workspaceName, signal, onWarning } = options;
  const { search, work, ...range } = await within(workspaceName, async (workspace) => ({
    ...(await rangeOf(workspace, { good, bad }, options)),
    work: newWorkDirectory(workspace.found.control.temporary),
  }));
  let firstBad = range.bad;
  const tested: BisectTest[] = [];
  try {
    for (let at = search.next(); at !== null; at = search.next()) {
      const id = search.ids[at]!;
      throwIfAborted(signal);
      const { point, problem, appeared } = await within(workspaceName, async (workspace) =>
        placePoint(workspace, { id, work }, options),
      );
      failpoint("bisect.placed");
      const step = tested.length + 1;
      if (problem === null) options.onTest?.(point, step, tested.length + search.steps());
      else onWarning?.(`the save point ${shortOf(id)} is skipped: ${problem}`);
      const test: Omit<BisectTest, "save_point_id"> =
        problem === null
          ? await runIn(work, { id, command, search, signal })
          : { exit_code: null, verdict: "skipped", duration_ms: 0 };
      const seen = appeared();
      if (seen !== undefined) {
        test.verdict = "skipped";
        const shown = quotedPath(Buffer.from(seen, "latin1"));
        onWarning?.(`the save point ${shortOf(id)} is skipped: ${shown} appeared in the folder during the test`);
      }
      removeAll(work);
      failpoint("bisect.removed");
      tested.push({ save_point_id: id, ...test });
      search.note(at, test);
      if (test.verdict === "bad") firstBad = point;
    }
  } finally {
    removeOrWarn(work, onWarning);
  }
  const candidates = search.candidates();
  const isKnown = candidates.length === 1;
  return {
    first_bad: isKnown ? firstBad : null,
    last_good: search.lastGood,
    candidates: isKnown ? [] : candidates,
    tested,
  };
}

/** A binary search in the points from a good one to a bad one, oldest first. Both are tested first. */
class Bisection {
  readonly ids: readonly SavePointId[];
  readonly #skipped = new Set<number>();
  /** Index of the newest good point before the candidates. */
  #good = 0;
  /** Index of the oldest bad point. */
  #bad: number;
  #tested = 0;

  constructor(ids: readonly SavePointId[]) {
    this.ids = ids;
    this.#bad = ids.length - 1;
  }

  get lastGood(): SavePointId {
    return this.ids[this.#good]!;
  }

  /** Returns the points among which the first bad one is, oldest first. */
  candidates(): SavePointId[] {
    return this.ids.slice(this.#good + 1, this.#bad + 1);
  }

  /** Index of an end that is untested, else of the untested candidate nearest to the middle; null if none is left. */
  next(): number | null {
    if (this.#tested < 2) return [0, this.#bad][this.#tested]!;
    const middle = Math.floor((this.#good + this.#bad) / 2);
    for (let distance = 0; distance < this.#bad - this.#good; distance++)
      for (const at of [middle - distance, middle + distance])
        if (at > this.#good && at < this.#bad && !this.#skipped.has(at)) return at;
    return null;
  }

  /** Returns about how many tests are left. */
  steps(): number {
    return Math.max(0, 2 - this.#tested) + Math.ceil(Math.log2(this.#bad - this.#good));
  }

  /** Throws `usage` if the point is an end and not good or bad, as it was named. */
  note(at: number, { verdict, exit_code: status }: Pick<BisectTest, "exit_code" | "verdict">): void {
    const wanted = ["good", "bad"][this.#tested++] ?? verdict;
    if (verdict !== wanted) {
      const ended = status === null ? "the command did not run" : `the command ended with status ${status}`;
      throw new CairnError("usage", `the save point ${shortOf(this.ids[at]!)} is ${verdict}, not ${wanted}: ${ended}`, {
        hint: "name a point on which the command succeeds, then one on which it fails; ignored entries are the present ones in every test",
      });
    }
    if (verdict === "skipped") this.#skipped.add(at);
    else if (verdict === "bad") this.#bad = at;
    else this.#good = at;
  }
}

/**
 * Finds the points after `good` up to `bad` along the parents of `bad`. Undo points and points whose record is damaged
 * are no candidates. Throws `usage` if `good` is not among the points that led to `bad`.
 */
async function rangeOf(
  workspace: Workspace,
  named: Pick<BisectInput, "good" | "bad">,
  { signal, onWarning }: BisectOptions,
): Promise<{ search: Bisection; bad: SavePoint }> {
  const [good, bad] = [workspace.resolveOwn(named.good), workspace.resolveOwn(named.bad)];
  const [goodId, badId] = [idOf(good), idOf(bad)];
  if (goodId === badId)
    throw new CairnError("usage", `the good and the bad save point are the same point, ${shortOf(goodId)}`, {
      hint: advice`name a good point that is older than the bad one: see ${call("history")}`,
    });
  if (good.sequence > bad.sequence)
    throw new CairnError(
      "usage",
      `the good save point ${shortOf(goodId)} is newer than the bad one, ${shortOf(badId)}`,
      {
        hint: "name the good point first, then the bad one",
      },
    );
  const ids = [badId];
  const pace = newPacer(signal);
  const sequences = workspace.points.ids();
  let point = bad;
  for (;;) {
    await pace();
    const before = pointBefore(workspace, point, { sequences, oldest: good.sequence, onWarning });
    if (before === null || before.sequence < good.sequence)
      throw new CairnError(
        "usage",
        `the save point ${shortOf(goodId)} did not lead to ${shortOf(badId)}: a restore in between went back to an older point`,
        {
          hint:
            before === null
              ? advice`name a good point that the bad one is based on: ${call("show POINT", "show", word("point"))} has a point's parent`
              : `name a good point that the bad one is based on, for example ${shortOf(idOf(before))}`,
        },
      );
    point = before;
    if (point.sequence === good.sequence) break;
    if (!point.descriptor.undo) ids.push(idOf(point));
  }
  return { search: new Bisection([goodId, ...ids.reverse()]), bad: publicPoint(bad) };
}

/** Returns a point's parent, or the newest older point if the parent is removed or damaged; null if there is none. */
function pointBefore(
  { points }: Workspace,
  { sequence, descriptor: { parent_id: parent } }: Point,
  known: { sequences: ReadonlyMap<SavePointId, number>; oldest: number; onWarning: BisectOptions["onWarning"] },
): Point | null {
  if (parent === null) return null;
  const at = known.sequences.get(parent);
  const found = at === undefined ? null : points.readOrNull(at);
  if (found !== null) return found;
  if (at !== undefined) known.onWarning?.(`the save point ${shortOf(parent)} is skipped: its record is damaged`);
  const older = points.sequences().filter((each) => each < (at ?? sequence) && each >= known.oldest);
  for (const each of older.toReversed()) {
    const read = points.readOrNull(each);
    if (read !== null) return read;
  }
  return null;
}

/**
 * Makes the layers of a point in the work directory. The point is a clone of its tree if possible, else written.
 * Returns the reason as `problem` if the point is damaged or incomplete. `appeared` returns an entry that the command
 * may have seen though it is neither the point's nor ignored: it appeared in the folder after this call.
 */
async function placePoint(
  workspace: Workspace,
  { id, work }: { id: SavePointId; work: string },
  options: BisectOptions,
): Promise<{ point: SavePoint; problem: string | null; appeared: () => string | undefined }> {
  const folder = join(work, "point");
  const target = Buffer.from(folder);
  const read = (): Point => {
    const point = workspace.byId(id);
    if (point !== null) return point;
    throw new CairnError("not_found", `the save point ${shortOf(id)} was removed meanwhile`, {
      hint: advice`see ${call("history")}, then start the bisect again`,
    });
  };
  const place = async (): Promise<string | null> => {
    const point = read();
    const { isCopied } = await howItComes(workspace, point, { ...options, target });
    if (!isCopied && !point.sealed) throw neverRead(point);
    if (!isCopied && !point.descriptor.complete) return "it is incomplete, see `cairn show`";
    const leftOut = await placeCopy(workspace, point, { folder, isCopied, hint: FREE_ROOM }, options);
    const damaged = leftOut.find(({ reason }) => reason === "damaged");
    return damaged === undefined ? null : `${quotedPath(damaged.path)} in it is damaged, see \`cairn verify\``;
  };
  const [mount] = mountsInside(workspace.root);
  if (mount !== undefined)
    throw new CairnError(
      "refused",
      `a file system is mounted at ${printablePath(mount.mountPoint)}, inside the folder`,
      {
        hint: advice`an overlay would show what lies below it: unmount it, or test in a fork: ${FORK}`,
      },
    );
  let problem: string | null;
  try {
    problem = await withSealed(workspace, options, place);
  } catch (error) {
    const failed = toCairnError(error);
    if (!isAboutThePoint(failed)) throw failed;
    problem = failed.message;
  }
  const appeared = problem === null ? makeLayers(workspace, work) : () => undefined;
  return { point: publicPoint(read()), problem, appeared };
}

/** Runs the command on the point in the work directory, and judges the point by the exit status. Throws `io` if a signal ended the command. */
async function runIn(
  work: string,
  {
    id,
    command,
    search,
    signal,
  }: { id: SavePointId; command: readonly string[]; search: Bisection; signal: AbortSignal | undefined },
): Promise<Omit<BisectTest, "save_point_id">> {
  // Stdout is for the answer.
  const env = { CAIRN_BISECT_POINT: id };
  const ended = await runProcess({ command: overFolder(work, command), cwd: work, stdout: "stderr", env, signal });
  const program = await endCommand(work);
  throwIfAborted(signal);
  const why = ended.notStarted ?? "the mounts failed, see the output above";
  if (program === null)
    throw new CairnError("unsupported", `the save point ${shortOf(id)} cannot be shown at the folder's path: ${why}`, {
      hint: advice`this needs unshare and mount of util-linux, user namespaces or root, and overlayfs of Linux 5.11 or later. Else test in a fork: ${FORK}`,
    });
  if (program === "")
    throw new CairnError("not_found", `the bisect was stopped at ${shortOf(id)}: there is no program ${command[0]}`, {
      hint: "name a program that is in PATH or in every save point; `sh -c '[ -e ./PROGRAM ] || exit 125; ./PROGRAM'` skips save points without the program",
    });
  const { exitCode } = ended;
  if (exitCode >= FIRST_OF_SIGNALS) {
    const how = ended.signal === null ? `ended with status ${exitCode}` : `was ended by ${ended.signal}`;
    const [from, to] = [search.lastGood, search.candidates().at(-1)!].map(shortOf);
    throw new CairnError("io", `the command ${how} on the save point ${shortOf(id)}, so the bisect was stopped`, {
      hint: advice`only an exit status from 0 to 127 says whether a save point is good or bad; go on with: ${line(`bisect ${from} ${to} -- COMMAND`, "bisect", from!, to!, word("command"))}`,
    });
  }
  const verdict = exitCode === 0 ? "good" : exitCode === SKIP ? "skipped" : "bad";
  return { exit_code: exitCode, verdict, duration_ms: ended.durationMs };
}

/** Removes the temporary folder. A failure here must not hide the result; the next command tries again. */
function removeOrWarn(work: string, onWarning: BisectOptions["onWarning"]): void {
  try {
    removeAll(work);
  } catch (error) {
    onWarning?.(`the temporary folder ${printablePath(work)} could not be removed: ${toCairnError(error).message}`);
  }
}

function idOf({ descriptor }: Point): SavePointId {
  return descriptor.save_point_id;
}

function shortOf(id: SavePointId): string {
  return id.slice(0, 8);
}
