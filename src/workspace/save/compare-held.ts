import { presentAndPrevious, presentSource } from "../../archive/scan/present-source.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import { collectPaced, newPacer, type Pacer } from "../../pacer.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import type { StageRequest } from "../store/engine.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { heldAt, heldTreeProblem, requireAsMade, treePlace } from "../points/held-trees.ts";
import { type Point, rulesToReadBy } from "../points/point-files.ts";
import { hasSameContent, settled, turnedRound } from "./settle-contents.ts";
import { stageRequest } from "./record-point.ts";
import { type Difference, exactDifferences } from "../points/tree-diff.ts";

/**
 * Compares held trees with each other, and with the folder, without a store: an inode whose number, size and times are as they
 * were has the content that it had. Of other files the content is compared, where size and times leave it open.
 */

/** A tree that is compared. */
export interface Side {
  readonly request: StageRequest;
  /** when it was held, in milliseconds since 1970; nothing for the folder itself */
  readonly at: number;
  /** Throws where what was scanned is not what the point holds. */
  check(scan: ScanResult): void;
}

/** The folder as it is. */
export function folderSide(request: StageRequest): Side {
  return { request, at: Infinity, check: () => undefined };
}

/**
 * A point's held tree; null for a point that is sealed, and where the tree's inodes say nothing of those that it was made from.
 * Throws `damaged` where it is gone or was changed.
 */
export function heldSide(workspace: Workspace, point: Point, call: WorkspaceCall): Side | null {
  const { points } = workspace;
  const { descriptor } = point;
  if (point.sealed) return null;
  const problem = heldTreeProblem(points, point);
  if (problem !== null) throw problem;
  const known = heldAt(points, point);
  if (known.heldAt === undefined) return null;
  const request = stageRequest(
    workspace,
    { ...call, exclude: descriptor.rules.exclude },
    { rules: rulesToReadBy(descriptor), head: null, id: descriptor.save_point_id },
  );
  return {
    request: { ...request, ...known, passesLongRules: true, root: Buffer.from(treePlace(points, point)) },
    at: known.heldAt,
    check: (scan) => requireAsMade(points, point, { scan }),
  };
}

/** Two trees that were looked at. */
export class HeldComparison {
  readonly #sides: { from: Looked; to: Looked };
  /** They are compared from the later one, by whose scan they are one. */
  readonly #isTurned: boolean;
  readonly #sources: { later: TreeSource; earlier: TreeSource };

  private constructor(earlier: Looked, later: Looked, isTurned: boolean) {
    this.#isTurned = isTurned;
    this.#sides = isTurned ? { from: later, to: earlier } : { from: earlier, to: later };
    const pair = presentAndPrevious(later.scan);
    this.#sources =
      pair === null
        ? { later: presentSource(later.scan), earlier: presentSource(earlier.scan) }
        : { later: pair.present, earlier: pair.previous };
  }

  /** Looks at both, the one that was held first at first: what the other shares with it is known then. */
  static async of(workspace: Workspace, from: Side, to: Side): Promise<HeldComparison> {
    const isTurned = to.at < from.at;
    const [first, second] = isTurned ? [to, from] : [from, to];
    const { earlier, later } = await workspace.engine.lookUnread(first.request, second.request);
    first.check(earlier);
    second.check(later);
    return new HeldComparison(
      { scan: earlier, root: Buffer.from(first.request.root) },
      { scan: later, root: Buffer.from(second.request.root) },
      isTurned,
    );
  }

  /** Scan of the second tree. */
  get scan(): ScanResult {
    return this.#sides.to.scan;
  }

  /** Scan of the first tree. */
  get firstScan(): ScanResult {
    return this.#sides.from.scan;
  }

  get from(): TreeSource {
    return this.#isTurned ? this.#sources.later : this.#sources.earlier;
  }

  get to(): TreeSource {
    return this.#isTurned ? this.#sources.earlier : this.#sources.later;
  }

  /** Lists what differs, the contents of files compared where size and times leave it open; with `exactly` everywhere. */
  async differences({
    exactly,
    signal,
  }: {
    exactly: boolean;
    signal?: AbortSignal | undefined;
  }): Promise<Difference[]> {
    const pace = newPacer(signal);
    const { later, earlier } = this.#sources;
    const fields = {
      before: (this.#isTurned ? this.#sides.from : this.#sides.to).scan.summarise().lossless,
      after: (this.#isTurned ? this.#sides.to : this.#sides.from).scan.summarise().lossless,
    };
    const listed = await collectPaced(exactDifferences(later, earlier, fields), pace);
    const turned = this.#isTurned ? listed : listed.map(turnedRound);
    return settled(turned, this.#roots, { exactly, pace });
  }

  /** Tells of a path that has files in both if they have the same content. */
  async hasSameContent(difference: Difference, pace: Pacer): Promise<boolean> {
    return hasSameContent(difference, this.#roots, pace);
  }

  get #roots(): { from: Buffer; to: Buffer } {
    return { from: this.#sides.from.root, to: this.#sides.to.root };
  }
}

interface Looked {
  scan: ScanResult;
  root: Buffer;
}
