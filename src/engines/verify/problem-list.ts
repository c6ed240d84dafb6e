import { printablePath } from "../../fs/safe-path.ts";
import { objectIdOf } from "../../ids.ts";
import type { BlobIndex } from "../../repository/blob-index.ts";
import { AffectedPaths, type AffectedPath, type AffectedPathsOptions } from "./affected-paths.ts";
import type { PointManifest } from "./point-manifest.ts";
import type { TreeTotals } from "./tree-walk.ts";
import type { CheckedPoint } from "./checked-point.ts";
import type { PackReport } from "./verify-task.ts";

export interface ContentProblem {
  /** label of the point; null: a file of the store that is damaged, whoever needs it */
  point: string | null;
  /** relative to the workspace's root, raw bytes; null where it is about the whole */
  path: Uint8Array | null;
  kind: "tree" | "content" | "snapshot" | "manifest" | "digest" | "pack";
  detail: string;
  hint: string;
}

const MAX_PROBLEMS = 10_000;
const MEND =
  "run `cairn doctor --repair`; content that is still in the folder is stored again by the next save with --reread";
const MEND_SNAPSHOT = "the files can be given back; `cairn doctor --repair` mends what it can";
const DIFFERENT =
  "compare with another copy of the control directory; the files can be looked at with `cairn restore --to`";

export interface ProblemListOptions {
  index: BlobIndex;
  /** a byte for each entry of the index */
  needed: Uint8Array;
  proven: Uint8Array;
  reports: readonly PackReport[];
  /** Also list damage that no point is hurt by. */
  all: boolean;
}

/** Turns what the threads and the walk found into problems with the paths they hurt. */
export class ProblemList {
  readonly problems: ContentProblem[] = [];
  more = 0;
  /** Labels of points that something is wrong with. */
  readonly damaged = new Set<string>();
  readonly #options: ProblemListOptions;
  readonly #reports = new Map<number, PackReport>();
  readonly #reasons = new Map<number, string>();

  constructor(options: ProblemListOptions) {
    this.#options = options;
    for (const report of options.reports) {
      this.#reports.set(report.pack, report);
      for (const { entry, message } of report.blobs) this.#reasons.set(entry, message);
    }
  }

  #add(problem: ContentProblem): void {
    if (problem.point !== null) this.damaged.add(problem.point);
    if (this.problems.length < MAX_PROBLEMS) this.problems.push(problem);
    else this.more++;
  }

  /** True when something that a point needs was not proven. */
  anyLost(): boolean {
    const { needed, proven } = this.#options;
    return needed.some((wanted, entry) => wanted === 1 && proven[entry] !== 1);
  }

  /** Pack files that are damaged as such. */
  addPacks(): void {
    const { index, needed, proven, all } = this.#options;
    const lost = new Map<number, number>();
    const { table } = index;
    for (let entry = 0; entry < table.count; entry++) {
      if (needed[entry] !== 1 || proven[entry] === 1) continue;
      const pack = table.packOf[entry]!;
      lost.set(pack, (lost.get(pack) ?? 0) + 1);
    }
    for (const report of this.#reports.values()) {
      const count = lost.get(report.pack) ?? 0;
      // Only blobs that nobody needs are damaged.
      if (count === 0 && !all && (report.kind === "name" || report.kind === null)) continue;
      const name = objectIdOf(table.packId(report.pack));
      const what = describe(report);
      const effect =
        count === 0
          ? "nothing that was checked is lost by it"
          : `${count} blobs that are needed cannot be read from it`;
      this.#add({ point: null, path: null, kind: "pack", detail: `pack ${name}: ${what}; ${effect}`, hint: MEND });
    }
  }

  #damageOf(entry: number): string | null {
    const { index, proven } = this.#options;
    if (proven[entry] === 1) return null;
    const pack = index.table.packOf[entry]!;
    const name = objectIdOf(index.table.packId(pack)).slice(0, 12);
    const reason = this.#reasons.get(entry);
    if (reason !== undefined) return `in pack ${name}: ${reason}`;
    return wholePackDamage(this.#reports.get(pack), name) ?? `pack ${name} does not hold it where the index says`;
  }

  /** Every path of every point that cannot be given back. */
  async addPaths(points: readonly CheckedPoint[], options: Omit<AffectedPathsOptions, "damage">): Promise<void> {
    const finder = new AffectedPaths({ ...options, damage: (entry) => this.#damageOf(entry) });
    for (const { label, tree, snapshotTree } of points) {
      await finder.find(tree, null, (affected) => this.#add({ ...pathProblem(affected), point: label }));
      if (snapshotTree === null) continue;
      await finder.find(snapshotTree, tree, ({ path, detail }) =>
        this.#add({
          point: label,
          path: null,
          kind: "snapshot",
          detail: `/${printablePath(Buffer.from(path, "latin1"))} of its snapshot: ${detail}`,
          hint: MEND_SNAPSHOT,
        }),
      );
    }
  }

  /** What was computed against what was recorded. */
  addDigests(point: CheckedPoint, manifest: PointManifest, totals: TreeTotals): void {
    const { label } = point;
    if (manifest.problem !== null && !this.damaged.has(label)) {
      this.#add({
        point: label,
        path: null,
        kind: "manifest",
        detail: `its manifest cannot be used: ${manifest.problem}`,
        hint: MEND_SNAPSHOT,
      });
    }
    this.#compare(label, "state digest", totals.state, point.stateDigest);
    this.#compare(label, "metadata digest", totals.meta, point.metadataDigest);
    const recorded = manifest.manifest;
    if (recorded === null) return;
    this.#compareManifest(label, "state digest", recorded.stateDigest, point.stateDigest);
    this.#compareManifest(label, "metadata digest", recorded.metadataDigest, point.metadataDigest);
  }

  #compare(label: string, what: string, computed: Uint8Array | null, recorded: Uint8Array | null): void {
    // Where none could be computed, the cause is listed already.
    if (computed === null || recorded === null || Buffer.compare(computed, recorded) === 0) return;
    this.#add({
      point: label,
      path: null,
      kind: "digest",
      detail: `its content has the ${what} ${objectIdOf(computed)}, its descriptor says ${objectIdOf(recorded)}`,
      hint: DIFFERENT,
    });
  }

  #compareManifest(label: string, what: string, recorded: string | null, descriptor: Uint8Array | null): void {
    if (recorded === null || descriptor === null || recorded === objectIdOf(descriptor)) return;
    this.#add({
      point: label,
      path: null,
      kind: "manifest",
      detail: `its manifest has the ${what} ${recorded}, its descriptor ${objectIdOf(descriptor)}`,
      hint: DIFFERENT,
    });
  }
}

/** What is wrong with a pack as a whole, as the reason why a blob of it was not proven; null where nothing is. */
export function wholePackDamage(report: Pick<PackReport, "kind" | "message"> | undefined, name: string): string | null {
  if (report?.kind === "missing") return `its pack ${name} is missing`;
  if (report?.kind === "unreadable") return `its pack ${name} cannot be read: ${report.message}`;
  if (report?.kind === "name") return `its pack ${name} is not what its name says`;
  return null;
}

function describe(report: PackReport): string {
  if (report.kind === null) return `${report.blobs.length} of its blobs are damaged`;
  return report.kind === "header" ? `its header cannot be read (${report.message})` : report.message;
}

function pathProblem({ path, kind, detail }: AffectedPath): Omit<ContentProblem, "point"> {
  return { path: Buffer.from(path, "latin1"), kind, detail, hint: MEND };
}
