import { append } from "../../append.ts";
import { identityOfTree } from "../../clones/as-made.ts";
import { CairnError, see, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import {
  encodePin,
  encodeTags,
  encodeVerification,
  type PinFile,
  type VerificationFile,
} from "../../formats/records/control.ts";
import type { Descriptor } from "../../formats/records/descriptor.ts";
import type { SealedState, SealFile } from "../../formats/records/seal-file.ts";
import {
  durableRemove,
  durableWrite,
  fsyncDirectory,
  orderedWrite,
  readSmallFile,
  TEMPORARY_PREFIX,
  temporaryName,
} from "../../fs/durable.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { namesIfThere } from "../../fs/paths/names-in.ts";
import { clearAway, removeAll } from "../../fs/remove-all.ts";
import { removeLeftovers } from "../../fs/work-directory.ts";
import { writeRegular } from "../../fs/regular-file.ts";
import type { SavePointId } from "../../ids.ts";
import { listWorkspaces, type PlacedWorkspace } from "../place/control-directory.ts";
import {
  type ControlPaths,
  pointDirectoryName,
  type PointPaths,
  pointPaths,
  type WorkspacePaths,
  workspacePaths,
} from "../place/control-layout.ts";
import {
  type Claim,
  claimOf,
  encodeDescriptorFile,
  encodeSealFile,
  MAX_DESCRIPTOR_BYTES,
  type Point,
  pointOf,
} from "./point-files.ts";
import {
  addToListing,
  type CatalogRow,
  forgetListing,
  listSequences,
  PointCatalog,
  type PointKind,
} from "./point-catalog.ts";
import { PointTexts, textFileOf, type TextRow } from "./point-texts.ts";
import type { Pacer } from "../../pacer.ts";
import { existsSync, linkSync, mkdirSync, readdirSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";

/** Number of the newest claims that may be unfinished: one writer leaves at most one, and clean-ups may be killed, too. */
const UNFINISHED_LOOK_BACK = 4;

export interface DamagedPoint {
  readonly sequence: number;
  /** Null if the catalog does not know the id. */
  readonly id: SavePointId | null;
  readonly problem: CairnError;
}

export interface PointList {
  /** Newest first. */
  readonly points: Point[];
  readonly damaged: DamagedPoint[];
  /** True if there are older points beyond `limit`. */
  readonly truncated: boolean;
}

export interface ListOptions {
  /** Most points to return, including damaged ones; 0 or less means all. */
  limit?: number;
  /** Only points with a smaller sequence number. */
  before?: number;
  /** Lists this undo point and no other undo points; null: no undo points. */
  savesAnd?: SavePointId | null;
  /** Leaves out this many of the newest listed points. Reads only the catalog for them. */
  skip?: number;
}

/** A point's texts, and the point if it was read for them. */
export interface KnownTexts {
  readonly sequence: number;
  readonly row: TextRow;
  readonly point?: Point;
}

function kindOf(descriptor: Descriptor): PointKind {
  return descriptor.undo ? "u" : descriptor.chosen_id === undefined ? "s" : "n";
}

function isHidden(read: Point | DamagedPoint, { savesAnd: shown }: ListOptions): boolean {
  if (shown === undefined || "problem" in read) return false;
  return read.descriptor.undo && read.descriptor.save_point_id !== shown;
}

function isListed({ id, kind }: CatalogRow, { savesAnd: shown }: ListOptions): boolean {
  return shown === undefined || kind !== "u" || id === shown;
}

function isOf(read: Point | DamagedPoint | null, id: SavePointId): read is Point {
  return read !== null && !("problem" in read) && read.descriptor.save_point_id === id;
}

// Number of the newest points that are read directly before the catalog is loaded.
const DIRECT_READS = 4;

/** The save points of one workspace. Reading needs no lock; changes need the workspace's lock. */
export class Points {
  readonly #directory: string;
  readonly #catalog: PointCatalog;
  readonly #texts: PointTexts;
  /** the listing of which all points were read, because an id was not in the catalog */
  #readAll: readonly number[] | undefined;

  constructor(paths: Pick<WorkspacePaths, "points" | "catalog" | "texts">) {
    this.#directory = paths.points;
    this.#catalog = new PointCatalog(paths.catalog);
    this.#texts = new PointTexts(paths.texts, dirname(paths.points));
  }

  pathsOf(sequence: number): PointPaths {
    return pointPaths(this.#directory, sequence);
  }

  /** All sequence numbers that are taken, ascending, including claims without a point. */
  sequences(): readonly number[] {
    return listSequences(this.#directory);
  }

  /** The numbers of finished points, including damaged ones, ascending. */
  committed(): number[] {
    const rows = this.#catalog.rows();
    return this.sequences().filter((sequence) => rows.has(sequence) || this.isFinished(sequence));
  }

  /** The number that the next point gets. */
  nextSequence(): number {
    return (this.sequences().at(-1) ?? 0) + 1;
  }

  /** Claims a number by making its directory. Throws `conflict` if another process has claimed the number meanwhile. */
  claim(sequence: number, id: SavePointId, options: { durable?: boolean } = {}): void {
    const { root, intent } = this.pathsOf(sequence);
    try {
      mkdirSync(root, { mode: 0o700 });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw toCairnError(error, `claim ${root}`);
      // The listing that this number came from is out of date, whatever the directory's time says.
      forgetListing(this.#directory);
      throw new CairnError("conflict", `another process saved meanwhile, and took the sequence number ${sequence}`, {
        hint: "save again",
      });
    }
    try {
      writeRegular(intent, id);
      if (options.durable !== false) fsyncDirectory(this.#directory);
    } catch (error) {
      this.abandon(sequence);
      throw toCairnError(error, `claim ${root}`);
    }
    addToListing(this.#directory, sequence);
    failpoint("point-claimed");
  }

  /**
   * Writes the descriptor into a claim, right before the point's clone is made. The file system's next commit makes
   * both durable. Readers ignore the descriptor as long as the clone is missing.
   */
  announce(descriptor: Descriptor): void {
    orderedWrite(this.pathsOf(descriptor.sequence).intent, encodeDescriptorFile(descriptor));
  }

  /** Records the identity of the tree that a claim's point holds. The link is durable with the next file in the directory. */
  identifyTree(sequence: number): void {
    const { tree, treeIdentity } = this.pathsOf(sequence);
    rmSync(treeIdentity, { force: true });
    symlinkSync(identityOfTree(tree), treeIdentity);
    failpoint("point-tree-identified");
  }

  /** Claims without a point among the last numbers; only these can be unfinished. */
  unfinished(): Claim[] {
    return this.sequences()
      .slice(-UNFINISHED_LOOK_BACK)
      .filter((sequence) => !this.isFinished(sequence))
      .map((sequence) => claimOf(sequence, readSmallFile(this.pathsOf(sequence).intent, MAX_DESCRIPTOR_BYTES)));
  }

  /** True if the number's point has a descriptor, or has lost it. */
  isFinished(sequence: number): boolean {
    return existsSync(this.pathsOf(sequence).descriptor) || this.#hasLostDescriptor(sequence);
  }

  /** True for the directory of a point whose descriptor is gone. */
  #hasLostDescriptor(sequence: number): boolean {
    const { root } = this.pathsOf(sequence);
    const names = namesIfThere(root).filter((name) => !name.startsWith(TEMPORARY_PREFIX));
    if (names.includes("descriptor.json")) return false;
    // A claim is empty for an instant. A point that lost its only file is empty, too: the catalog tells.
    if (names.length === 0) return existsSync(root) && this.#catalog.rows().has(sequence);
    return !names.includes("intent") || !names.every((name) => OF_A_CLAIM.test(name));
  }

  /** Removes a claim without a point; a finished point stays. */
  abandon(sequence: number): void {
    const { root } = this.pathsOf(sequence);
    if (this.isFinished(sequence)) return;
    forgetListing(this.#directory);
    const staged = join(this.#directory, temporaryName());
    try {
      // A half-removed claim would look like a point that lost its descriptor.
      renameSync(root, staged);
    } catch {
      // The next writer removes a claim that could not be moved.
      return;
    }
    clearAway(staged);
  }

  /**
   * Commits a save: gives the descriptor its name in the claimed directory. Throws `conflict` if the claim is gone.
   * `keepClaim` keeps the claim until `settle`, so that a kill in between shows that head was not moved. `announced`:
   * the claim has the descriptor.
   */
  commit(descriptor: Descriptor, options: { keepClaim?: boolean; announced?: boolean } = {}): Point {
    const bytes = encodeDescriptorFile(descriptor);
    const { sequence } = descriptor;
    const paths = this.pathsOf(sequence);
    failpoint("point-before-descriptor");
    try {
      if (options.announced === true) linkSync(paths.intent, paths.descriptor);
      else durableWrite(paths.descriptor, bytes, { exclusive: true });
    } catch (error) {
      const failed = toCairnError(error);
      if (failed.code !== "not_found" && failed.code !== "already_exists") throw failed;
      throw new CairnError("conflict", `this save lost its sequence number ${sequence}: another process took over`, {
        hint: "save again",
        cause: error,
      });
    }
    if (options.keepClaim !== true) this.settle(sequence);
    failpoint("point-committed");
    this.#catalog.add(new Map([[sequence, { id: descriptor.save_point_id, kind: kindOf(descriptor) }]]));
    return pointOf(paths, bytes, sequence);
  }

  /** Removes the claim of a finished point. `killed`: also temporary files beside it. */
  settle(sequence: number, options: { killed?: boolean } = {}): void {
    const { root, intent } = this.pathsOf(sequence);
    if (options.killed === true) removeLeftovers(root, { exclusive: true });
    rmSync(intent, { force: true });
  }

  /** Finished points among the last numbers that still have their claim, ascending. */
  unsettled(): number[] {
    return this.sequences()
      .slice(-UNFINISHED_LOOK_BACK)
      .filter((sequence) => existsSync(this.pathsOf(sequence).intent) && this.isFinished(sequence));
  }

  /** Removes unfinished claims and half-removed points. The caller holds the workspace's lock. */
  removeLeftovers(): string[] {
    const removed = removeLeftovers(this.#directory, { exclusive: true });
    const known = this.#catalog.rows();
    for (const sequence of this.sequences()) {
      const paths = this.pathsOf(sequence);
      const isFinished = this.isFinished(sequence);
      if (known.has(sequence) && isFinished) continue;
      if (isFinished) append(removed, removeLeftovers(paths.root, { exclusive: true }));
      else if (isUnfinished(paths.root)) {
        removeAll(paths.root);
        removed.push(pointDirectoryName(sequence));
      }
    }
    return removed;
  }

  /** Reads one point. Throws `not_found`, `damaged`, `newer_version`. */
  read(sequence: number): Point {
    const paths = this.pathsOf(sequence);
    const bytes = readSmallFile(paths.descriptor, MAX_DESCRIPTOR_BYTES);
    if (bytes === null) {
      if (this.#hasLostDescriptor(sequence))
        throw new CairnError("damaged", `${paths.descriptor} no longer exists`, { hint: see("doctor") });
      throw new CairnError("not_found", `there is no point with sequence number ${sequence}`);
    }
    return pointOf(paths, bytes, sequence);
  }

  /** Reads a point; null if it is missing or damaged. Throws errors that may be gone at the next call. */
  readOrNull(sequence: number): Point | null {
    try {
      return this.read(sequence);
    } catch (error) {
      const problem = toCairnError(error);
      if (problem.code === "not_found" || problem.code === "damaged") return null;
      throw problem;
    }
  }

  /** Lists points, newest first. Reads only as many as needed. Damaged points are listed apart. */
  list(options: ListOptions = {}): PointList {
    const limit = options.limit ?? 0;
    const points: Point[] = [];
    const damaged: DamagedPoint[] = [];
    let truncated = false;
    let skip = options.skip ?? 0;
    for (const sequence of this.sequences().toReversed()) {
      if (options.before !== undefined && sequence >= options.before) continue;
      const row = skip > 0 ? this.#catalog.rows().get(sequence) : undefined;
      if (row !== undefined) {
        if (isListed(row, options)) skip--;
        continue;
      }
      const read = this.readOrDamage(sequence);
      if (read === null || isHidden(read, options)) continue;
      if (skip > 0) {
        skip--;
        continue;
      }
      truncated = limit > 0 && points.length + damaged.length >= limit;
      if (truncated) break;
      if ("problem" in read) damaged.push(read);
      else points.push(read);
    }
    return { points, damaged, truncated };
  }

  /** Yields the texts of points, or their damage, newest first, some hundred at a time. Reads only points that the cache lacks. */
  async *texts(sequences: readonly number[], pace: Pacer): AsyncGenerator<(KnownTexts | DamagedPoint)[]> {
    for (let end = sequences.length; end > 0;) {
      const file = textFileOf(sequences[end - 1]!);
      const known: (KnownTexts | DamagedPoint)[] = [];
      using rows = this.#texts.open(file);
      await pace();
      for (; end > 0 && textFileOf(sequences[end - 1]!) === file; end--) {
        const sequence = sequences[end - 1]!;
        const row = rows.get(sequence, this.idOf(sequence));
        if (row !== undefined) {
          known.push({ sequence, row });
          continue;
        }
        await pace();
        const read = this.readOrDamage(sequence);
        if (read !== null) known.push("problem" in read ? read : { sequence, row: rows.add(read), point: read });
      }
      yield known;
    }
  }

  /** Reads a point, or its damage; null for a claim without a descriptor, or a point that was removed meanwhile. */
  readOrDamage(sequence: number): Point | DamagedPoint | null {
    try {
      return this.read(sequence);
    } catch (error) {
      const problem = toCairnError(error);
      if (problem.code === "not_found") return null;
      return { sequence, id: this.#catalog.rows().get(sequence)?.id ?? null, problem };
    }
  }

  /** Reads points that the catalog lacks. Afterwards the catalog covers every healthy point of `sequences`. */
  #complete(sequences: readonly number[]): ReadonlyMap<number, CatalogRow> {
    const rows = this.#catalog.rows();
    const fresh = new Map<number, CatalogRow>();
    for (const sequence of sequences) {
      if (rows.has(sequence)) continue;
      const read = this.readOrDamage(sequence);
      if (read !== null && !("problem" in read))
        fresh.set(sequence, { id: read.descriptor.save_point_id, kind: kindOf(read.descriptor) });
    }
    this.#catalog.add(fresh);
    return this.#catalog.rows();
  }

  /** The points whose id begins with a prefix (lower-case hex), read and checked, and damaged ones with a known id. */
  withPrefix(prefix: string): (Point | DamagedPoint)[] {
    const sequences = this.sequences();
    const rows = this.#complete(sequences);
    const fitting: (Point | DamagedPoint)[] = [];
    for (const sequence of sequences) {
      if (rows.get(sequence)?.id.startsWith(prefix) !== true) continue;
      const read = this.readOrDamage(sequence);
      if (read === null) continue;
      // The catalog was wrong: the number belongs to another point now.
      if (!("problem" in read) && !read.descriptor.save_point_id.startsWith(prefix))
        return this.#withoutCatalog(prefix);
      fitting.push(read);
    }
    return fitting.length > 0 ? fitting : this.#withoutCatalog(prefix);
  }

  /** The points whose chosen id begins with `prefix`. The chosen id of a damaged point is unknown. */
  withChosenId(prefix: string): Point[] {
    const sequences = this.sequences();
    const rows = this.#complete(sequences);
    const named = sequences.filter((sequence) => rows.get(sequence)?.kind === "n");
    return named.flatMap((sequence) => {
      const read = this.readOrNull(sequence);
      return read?.descriptor.chosen_id?.startsWith(prefix) === true ? [read] : [];
    });
  }

  #withoutCatalog(prefix: string): Point[] {
    // All points were read for an id before, and the catalog has had their ids since.
    if (this.#readAll === this.sequences()) return [];
    const { points } = this.list();
    const fresh = new Map<number, CatalogRow>();
    for (const { sequence, descriptor } of points) {
      const known = this.#catalog.rows().get(sequence);
      if (known?.id !== descriptor.save_point_id)
        fresh.set(sequence, { id: descriptor.save_point_id, kind: kindOf(descriptor) });
    }
    this.#catalog.add(fresh);
    this.#readAll = this.sequences();
    return points.filter((point) => point.descriptor.save_point_id.startsWith(prefix)).toReversed();
  }

  /** The point with exactly this id; null if there is none. Throws the point's problem if it is damaged. */
  byId(id: SavePointId): Point | null {
    for (const sequence of this.sequences().slice(-DIRECT_READS).toReversed()) {
      const read = this.readOrDamage(sequence);
      if (isOf(read, id)) return read;
    }
    const known = this.#catalog.sequenceOf(id);
    const read = known === undefined ? null : this.readOrDamage(known);
    if (isOf(read, id)) return read;
    const found = this.withPrefix(id)[0];
    if (found !== undefined && "problem" in found) throw found.problem;
    return found ?? null;
  }

  /** All ids with their numbers, by ascending number. Damaged points without a known id are absent. */
  ids(): ReadonlyMap<SavePointId, number> {
    const sequences = this.sequences();
    const rows = this.#complete(sequences);
    const ids = new Map<SavePointId, number>();
    for (const sequence of sequences) {
      const row = rows.get(sequence);
      if (row !== undefined) ids.set(row.id, sequence);
    }
    return ids;
  }

  #sequenceOf(id: SavePointId): number | undefined {
    const sequences = this.sequences();
    const rows = this.#complete(sequences);
    return sequences.find((sequence) => rows.get(sequence)?.id === id);
  }

  /** Ids that begin with one of `prefixes`, including known ids of damaged points, and perhaps of removed points. */
  idsWith(prefixes: readonly string[]): SavePointId[] {
    if (this.#catalog.lines < this.sequences().length) this.#complete(this.sequences());
    return this.#catalog.idsWith(prefixes);
  }

  /** Counts the finished points, including damaged ones. */
  count(): number {
    return this.sequences().length - this.unfinished().length;
  }

  /** Sequence numbers of the finished points that are no undo points, ascending. */
  saved(): number[] {
    return this.listed({ savesAnd: null });
  }

  /** Sequence numbers of all points that `list` lists, including damaged ones, ascending. */
  listed(options: Pick<ListOptions, "savesAnd">): number[] {
    const rows = this.#catalog.rows();
    const unknown: number[] = [];
    const listed = this.sequences().filter((sequence) => {
      const row = rows.get(sequence);
      if (row === undefined) unknown.push(sequence);
      return row === undefined || isListed(row, options);
    });
    if (unknown.length === 0) return listed;
    this.#complete(unknown);
    const now = this.#catalog.rows();
    return listed.filter((sequence) => {
      const row = now.get(sequence);
      return row === undefined ? this.isFinished(sequence) : isListed(row, options);
    });
  }

  /** The id of a point as the catalog has it; null if the catalog does not know the point. */
  idOf(sequence: number): SavePointId | null {
    return this.#catalog.rows().get(sequence)?.id ?? null;
  }

  /** The point that `point` was based on. If a cleanup removed it, the newest older point; null for the first point. */
  before({ sequence, descriptor: { parent_id: parent } }: Pick<Point, "sequence" | "descriptor">): Point | null {
    if (parent === null) return null;
    const sequences = this.sequences();
    const rows = this.#catalog.rows();
    const own = sequences.lastIndexOf(sequence);
    let at = own - 1;
    while (at >= 0 && rows.get(sequences[at]!)?.id !== parent) at--;
    const known = at >= 0 ? sequences[at] : this.#sequenceOf(parent);
    for (const each of known === undefined ? sequences.slice(0, own).reverse() : [known]) {
      const point = this.readOrNull(each);
      if (point !== null) return point;
    }
    return null;
  }

  /**
   * The newest point that is not an undo point; null if there is none. Skips damaged points. Prefers saved points to
   * imported ones, which may be older than their number.
   */
  latest(): Point | null {
    let imported: Point | null = null;
    for (const [at, sequence] of this.sequences().toReversed().entries()) {
      if (imported !== null && at >= DIRECT_READS) break;
      if (at >= DIRECT_READS && this.#catalog.rows().get(sequence)?.kind === "u") continue;
      const read = this.readOrDamage(sequence);
      if (read === null || "problem" in read) continue;
      if (kindOf(read.descriptor) === "u") continue;
      if (!isImported(read)) return read;
      imported ??= read;
    }
    return imported;
  }

  /** Removes a point durably: the rename of its directory is the commit. Returns false if there was none. */
  remove(sequence: number): boolean {
    const staged = join(this.#directory, temporaryName());
    this.#catalog.forget([sequence]);
    const isMoved = this.#texts.without([sequence], () => {
      if (!this.#moveAway(sequence, staged)) return false;
      fsyncDirectory(this.#directory);
      return true;
    });
    if (!isMoved) return false;
    failpoint("point-removed");
    removeAll(staged);
    this.#catalog.compact(new Set(this.sequences()));
    return true;
  }

  /** Renames a point's directory to `to`. Returns false if the point is missing. */
  #moveAway(sequence: number, to: string): boolean {
    try {
      renameSync(this.pathsOf(sequence).root, to);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
      throw toCairnError(error, `remove the point with sequence number ${sequence}`);
    }
  }

  /**
   * Removes points by renaming their directories, with one sync for all: after a power cut some may be back, and the
   * caller's journal names them. Ignores missing points.
   */
  removeAll(sequences: readonly number[]): number {
    const staged = join(this.#directory, temporaryName());
    mkdirSync(staged, { mode: 0o700 });
    this.#catalog.forget(sequences);
    let removed = 0;
    this.#texts.without(sequences, () => {
      for (const sequence of sequences) {
        if (this.#moveAway(sequence, join(staged, pointDirectoryName(sequence)))) removed++;
        failpoint("points.moved-away");
      }
      fsyncDirectory(this.#directory);
    });
    failpoint("points.gone");
    removeAll(staged);
    forgetListing(this.#directory);
    this.#catalog.compact(new Set(this.sequences()));
    return removed;
  }

  /** Moves points or claims durably into a new folder `aside`. Returns `aside`. */
  moveAside(sequences: readonly number[], aside: string): string {
    this.#catalog.forget(sequences);
    try {
      makeFolder(aside);
      this.#texts.without(sequences, () => {
        for (const sequence of sequences)
          renameSync(this.pathsOf(sequence).root, join(aside, pointDirectoryName(sequence)));
      });
    } catch (error) {
      throw toCairnError(error, `move points to ${aside}`);
    }
    fsyncDirectory(this.#directory);
    forgetListing(this.#directory);
    return aside;
  }

  /** Removes the leftovers of a killed removal. The caller holds the workspace's lock. */
  removeMovedAway(): void {
    removeLeftovers(this.#directory, { exclusive: true });
  }

  /** Seals a point with the bytes of its seal file, and returns it with its digests, ids and counts. Durable by rename. */
  seal(sequence: number, file: Uint8Array): Point {
    durableWrite(this.pathsOf(sequence).seal, file);
    return this.read(sequence);
  }

  /** Replaces the record of a point's content: its seal if it has one, else its descriptor. Durable by rename. */
  replaceContent({ sequence, made }: Point, state: SealedState, content: SealFile["content"]): void {
    const { descriptor, seal, verification, times } = this.pathsOf(sequence);
    const { save_point_id } = made;
    if (made.content.tree === "")
      this.#write(seal, encodeSealFile({ save_point_id, sealed_at: new Date().toISOString(), content, ...state }));
    else this.#write(descriptor, encodeDescriptorFile({ ...made, ...state, content: { ...made.content, ...content } }));
    failpoint("point-rewritten");
    // Both are about the former content; the names of removed entries go.
    for (const each of [verification, times]) rmSync(each, { force: true });
  }

  /** Runs `change`, which writes descriptors of points. The caller holds the workspace's lock. */
  rewriting(sequences: readonly number[], change: () => void): void {
    this.#texts.without(sequences, change);
  }

  /** Replaces the causes, messages, tags and chosen ids in points' descriptors. Each is durable by rename. */
  replaceCauses(all: readonly { point: Point; by: Partial<Descriptor> }[]): void {
    this.#texts.without(
      all.map(({ point }) => point.sequence),
      () => {
        for (const { point, by } of all) {
          this.#write(this.pathsOf(point.sequence).descriptor, encodeDescriptorFile({ ...point.made, ...by }));
          failpoint("cause-rewritten");
        }
      },
    );
  }

  writePin(sequence: number, pin: PinFile | null): void {
    const { pin: path } = this.pathsOf(sequence);
    if (pin === null) durableRemove(path);
    else this.#write(path, encodePin(pin));
  }

  writeTags(sequence: number, tags: readonly string[]): void {
    this.#texts.without([sequence], () => this.#write(this.pathsOf(sequence).tags, encodeTags({ tags: [...tags] })));
  }

  writeVerification(sequence: number, verification: VerificationFile): void {
    this.#write(this.pathsOf(sequence).verification, encodeVerification(verification));
  }

  /**
   * Writes a file durably. A kill leaves its temporary file beside the points' folder, and the next writer removes the
   * file without a search through all points.
   */
  #write(path: string, bytes: Uint8Array): void {
    durableWrite(path, bytes, { stagedIn: dirname(this.#directory) });
  }

  /** Drops the cached catalog and listing, e.g. after waiting for the lock. */
  refresh(): void {
    this.#catalog.refresh();
    forgetListing(this.#directory);
  }
}

/** The points of one of the workspaces of a control directory. */
export interface WorkspacePoints {
  readonly name: string;
  /** Null if the workspace's record cannot be read. */
  readonly workspace: PlacedWorkspace | null;
  readonly paths: WorkspacePaths;
  readonly points: Points;
}

/** The points of all workspaces of a control directory. */
export function allPoints(control: ControlPaths): WorkspacePoints[] {
  return listWorkspaces(control).map(({ name, workspace }) => {
    const paths = workspacePaths(control, name);
    return { name, workspace, paths, points: new Points(paths) };
  });
}

/** Names that a killed save or removal may leave beside a save's intent. */
const OF_A_CLAIM = /^(intent|origins|(?:pin|times)\.json|tree(-coming|-going|-identity)?)$/;

/** True if the directory has only files that a save leaves before its commit; other files are not ours to remove. */
function isUnfinished(root: string): boolean {
  return readdirSync(root).every(
    (name) => name.startsWith(TEMPORARY_PREFIX) || /^(intent|(?:pin|times)\.json|tree-identity)$/.test(name),
  );
}

/** True for a point of a tree that another program made, or that was made again from the store after its record was lost. */
export function isImported({ descriptor }: Pick<Point, "descriptor">): boolean {
  return descriptor.cause["imported"] === true;
}
