import { hash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import {
  decodePin,
  decodeTags,
  decodeVerification,
  encodePin,
  encodeTags,
  encodeVerification,
} from "../formats/control.ts";
import type { PinFile, TagsFile, VerificationFile } from "../formats/control.ts";
import type { Descriptor } from "../formats/descriptor.ts";
import { type SealFile, sealedDescriptor } from "../formats/seal-file.ts";
import {
  durableRemove,
  durableWrite,
  fsyncDirectory,
  readSmallFile,
  removeLeftovers,
  temporaryName,
} from "../fs/durable.ts";
import { removeAll } from "../fs/remove-all.ts";
import { isSavePointId, type SavePointId } from "../ids.ts";
import { decodeDescriptorFile, decodeSealFile, encodeDescriptorFile, encodeSealFile } from "./descriptor-file.ts";
import { pointDirectoryName, pointPaths } from "./control-layout.ts";
import type { PointPaths, WorkspacePaths } from "./control-layout.ts";
import { PointCatalog } from "./point-catalog.ts";
import { addToListing, forgetListing, listSequences } from "./point-listing.ts";
import type { CatalogRow, PointKind } from "./point-catalog.ts";

/** One writer at a time leaves at most one; a few more in case clean-up was killed too. */
const UNFINISHED_LOOK_BACK = 4;
const MAX_DESCRIPTOR_BYTES = 64 << 20;
const MAX_SIDECAR_BYTES = 16 << 20;

/** A point and the small files beside its descriptor. */
export interface Point {
  readonly sequence: number;
  readonly descriptor: Descriptor;
  /** SHA-256 of the descriptor's bytes, 64 hex digits. */
  readonly checksum: string;
  /** False while only a held tree has its content: digests, ids and counts of the descriptor are empty then. */
  readonly sealed: boolean;
  readonly pin: PinFile | null;
  /** The edited tags, or those it was made with. */
  readonly tags: readonly string[];
  readonly verification: VerificationFile | null;
  /** Sidecars that could not be read; the point itself is well. */
  readonly problems: readonly CairnError[];
}

export interface DamagedPoint {
  readonly sequence: number;
  /** As far as the catalog remembers it. */
  readonly id: SavePointId | null;
  readonly problem: CairnError;
}

export interface PointList {
  /** Newest first. */
  readonly points: Point[];
  readonly damaged: DamagedPoint[];
  /** True when there are older ones that were not asked for. */
  readonly truncated: boolean;
}

export interface ListOptions {
  /** How many, damaged ones too; 0 or less is all. */
  limit?: number;
  /** Only those with a smaller sequence number. */
  before?: number;
}

function kindOf(descriptor: Descriptor): PointKind {
  const { kind } = descriptor.cause;
  return descriptor.undo || kind === "restore" || kind === "undo" ? "u" : "s";
}

// How many of the newest points are looked at directly before the catalog is loaded.
const DIRECT_READS = 4;

/** The save points of one workspace. Reading needs no lock; whatever changes something needs the workspace's. */
export class Points {
  readonly #directory: string;
  readonly #catalog: PointCatalog;

  constructor(paths: Pick<WorkspacePaths, "points" | "catalog">) {
    this.#directory = paths.points;
    this.#catalog = new PointCatalog(paths.catalog);
  }

  pathsOf(sequence: number): PointPaths {
    return pointPaths(this.#directory, sequence);
  }

  /** All sequence numbers that are taken, ascending; also claims whose point was never finished. */
  sequences(): readonly number[] {
    return listSequences(this.#directory);
  }

  /** The numbers of finished points, damaged ones too, ascending. */
  committed(): number[] {
    const rows = this.#catalog.rows();
    return this.sequences().filter((sequence) => rows.has(sequence) || existsSync(this.pathsOf(sequence).descriptor));
  }

  /** The number that the next point gets. */
  nextSequence(): number {
    return (this.sequences().at(-1) ?? 0) + 1;
  }

  /**
   * Claims a number by making its directory. A writer that slept while another took its lock over fails here with
   * `conflict`: it decided on the number before it slept.
   */
  claim(sequence: number, id: SavePointId, options: { durable?: boolean } = {}): void {
    const { root, intent } = this.pathsOf(sequence);
    try {
      mkdirSync(root, { mode: 0o700 });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw toCairnError(error, `claim ${root}`);
      // The listing that this number came from is not so any more, whatever the directory's time says.
      forgetListing(this.#directory);
      throw new CairnError("conflict", `the sequence number ${sequence} is taken: another process saved meanwhile`, {
        hint: "save again",
      });
    }
    try {
      writeFileSync(intent, id, { mode: 0o600 });
      if (options.durable !== false) fsyncDirectory(this.#directory);
    } catch (error) {
      this.abandon(sequence);
      throw toCairnError(error, `claim ${root}`);
    }
    addToListing(this.#directory, sequence);
    failpoint("point-claimed");
  }

  /** Claims without a point among the last numbers, where alone they are left, and the id each was made for. */
  unfinished(): { sequence: number; id: SavePointId | null }[] {
    return this.sequences()
      .slice(-UNFINISHED_LOOK_BACK)
      .filter((sequence) => !existsSync(this.pathsOf(sequence).descriptor))
      .map((sequence) => {
        const text = readSmallFile(this.pathsOf(sequence).intent, 64)?.toString("latin1") ?? "";
        return { sequence, id: isSavePointId(text) ? text : null };
      });
  }

  /** Gives up a claim without a point; a finished point stays. */
  abandon(sequence: number): void {
    const paths = this.pathsOf(sequence);
    if (existsSync(paths.descriptor)) return;
    forgetListing(this.#directory);
    removeAll(paths.root);
  }

  /**
   * The commit point of a save: the descriptor gets its name in the claimed directory. Throws `conflict` when the claim
   * is gone. With `keepClaim` the claim stays beside it until `settle`: a kill in between tells that head was not moved.
   */
  commit(descriptor: Descriptor, options: { keepClaim?: boolean } = {}): Point {
    const bytes = encodeDescriptorFile(descriptor);
    const { sequence } = descriptor;
    failpoint("point-before-descriptor");
    try {
      durableWrite(this.pathsOf(sequence).descriptor, bytes, { exclusive: true });
    } catch (error) {
      const failed = toCairnError(error);
      if (failed.code !== "not_found" && failed.code !== "already_exists") throw failed;
      throw new CairnError("conflict", `the claim of sequence number ${sequence} is gone: another process took over`, {
        hint: "save again",
        cause: error,
      });
    }
    if (options.keepClaim !== true) this.settle(sequence);
    failpoint("point-committed");
    this.#catalog.add(new Map([[sequence, { id: descriptor.save_point_id, kind: kindOf(descriptor) }]]));
    return pointOf(this.pathsOf(sequence), bytes, { sequence, names: [] });
  }

  /** Forgets the claim of a finished point; where its save was killed, what is beside it under temporary names too. */
  settle(sequence: number, options: { killed?: boolean } = {}): void {
    const { root, intent } = this.pathsOf(sequence);
    if (options.killed === true) removeLeftovers(root, undefined, { exclusive: true });
    rmSync(intent, { force: true });
  }

  /** Finished points among the last numbers whose claim was never forgotten, ascending. */
  unsettled(): number[] {
    return this.sequences()
      .slice(-UNFINISHED_LOOK_BACK)
      .filter((sequence) => existsSync(this.pathsOf(sequence).intent) && existsSync(this.pathsOf(sequence).descriptor));
  }

  /** Removes claims that were never finished, and half-removed points. Only for the holder of the workspace's lock. */
  removeLeftovers(): string[] {
    const removed = removeLeftovers(this.#directory, undefined, { exclusive: true });
    const known = this.#catalog.rows();
    for (const sequence of this.sequences()) {
      const paths = this.pathsOf(sequence);
      if (known.has(sequence) && existsSync(paths.descriptor)) continue;
      if (existsSync(paths.descriptor)) removed.push(...removeLeftovers(paths.root, undefined, { exclusive: true }));
      else if (isUnfinished(paths.root)) {
        removeAll(paths.root);
        removed.push(pointDirectoryName(sequence));
      }
    }
    return removed;
  }

  /** One point by number. Throws `not_found`, `damaged`, `newer_version`. */
  read(sequence: number): Point {
    const paths = this.pathsOf(sequence);
    const bytes = readSmallFile(paths.descriptor, MAX_DESCRIPTOR_BYTES);
    if (bytes === null) throw new CairnError("not_found", `there is no point with sequence number ${sequence}`);
    return pointOf(paths, bytes, { sequence, names: readdirSync(paths.root) });
  }

  /** Points newest first, reading only as many as are asked for; damaged ones are listed and hide nothing. */
  list(options: ListOptions = {}): PointList {
    const limit = options.limit ?? 0;
    const points: Point[] = [];
    const damaged: DamagedPoint[] = [];
    let truncated = false;
    for (const sequence of this.sequences().toReversed()) {
      if (options.before !== undefined && sequence >= options.before) continue;
      truncated = limit > 0 && points.length + damaged.length >= limit;
      if (truncated) break;
      const read = this.#tryRead(sequence);
      if (read === null) continue;
      if ("problem" in read) damaged.push(read);
      else points.push(read);
    }
    return { points, damaged, truncated };
  }

  /** Null for a claim without a descriptor, or a point that was removed meanwhile. */
  #tryRead(sequence: number): Point | DamagedPoint | null {
    try {
      return this.read(sequence);
    } catch (error) {
      const problem = toCairnError(error);
      if (problem.code === "not_found") return null;
      return { sequence, id: this.#catalog.rows().get(sequence)?.id ?? null, problem };
    }
  }

  /** Reads what the catalog does not know yet; afterwards it covers every healthy point of `sequences`. */
  #complete(sequences: readonly number[]): ReadonlyMap<number, CatalogRow> {
    const rows = this.#catalog.rows();
    const fresh = new Map<number, CatalogRow>();
    for (const sequence of sequences) {
      if (rows.has(sequence)) continue;
      const read = this.#tryRead(sequence);
      if (read !== null && !("problem" in read))
        fresh.set(sequence, { id: read.descriptor.save_point_id, kind: kindOf(read.descriptor) });
    }
    this.#catalog.add(fresh);
    return this.#catalog.rows();
  }

  /** The points whose id begins with a prefix (lower-case hex), each read and checked; damaged ones where the catalog remembers their id. */
  withPrefix(prefix: string): (Point | DamagedPoint)[] {
    const sequences = this.sequences();
    const rows = this.#complete(sequences);
    const fitting: (Point | DamagedPoint)[] = [];
    for (const sequence of sequences) {
      if (rows.get(sequence)?.id.startsWith(prefix) !== true) continue;
      const read = this.#tryRead(sequence);
      if (read === null) continue;
      // The catalog was wrong: the number belongs to another point now.
      if (!("problem" in read) && !read.descriptor.save_point_id.startsWith(prefix))
        return this.#withoutCatalog(prefix);
      fitting.push(read);
    }
    return fitting.length > 0 ? fitting : this.#withoutCatalog(prefix);
  }

  #withoutCatalog(prefix: string): Point[] {
    const { points } = this.list();
    const fresh = new Map<number, CatalogRow>();
    for (const { sequence, descriptor } of points) {
      const known = this.#catalog.rows().get(sequence);
      if (known?.id !== descriptor.save_point_id)
        fresh.set(sequence, { id: descriptor.save_point_id, kind: kindOf(descriptor) });
    }
    this.#catalog.add(fresh);
    return points.filter((point) => point.descriptor.save_point_id.startsWith(prefix)).toReversed();
  }

  /** The point with exactly this id, null when there is none. Throws its problem when it is damaged. */
  byId(id: SavePointId): Point | null {
    for (const sequence of this.sequences().slice(-DIRECT_READS).toReversed()) {
      const read = this.#tryRead(sequence);
      if (read !== null && !("problem" in read) && read.descriptor.save_point_id === id) return read;
    }
    const found = this.withPrefix(id)[0];
    if (found !== undefined && "problem" in found) throw found.problem;
    return found ?? null;
  }

  /** All ids with their numbers, by sequence ascending; damaged points without a known id are absent. */
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

  /** Ids that begin with a prefix of some digits, damaged points' too where they are known; perhaps some of points that are gone. */
  idsWith(prefixes: readonly string[]): SavePointId[] {
    if (this.#catalog.lines < this.sequences().length) this.#complete(this.sequences());
    return this.#catalog.idsWith(prefixes);
  }

  /** How many finished points there are, damaged ones too. */
  count(): number {
    return this.sequences().length - this.unfinished().length;
  }

  /** The newest point that no restore or undo made; null when there is none. A damaged one is passed over. */
  latest(): Point | null {
    for (const [at, sequence] of this.sequences().toReversed().entries()) {
      if (at >= DIRECT_READS && this.#catalog.rows().get(sequence)?.kind === "u") continue;
      const read = this.#tryRead(sequence);
      if (read === null || "problem" in read) continue;
      if (kindOf(read.descriptor) === "s") return read;
    }
    return null;
  }

  /** Removes a point durably: it is gone when its directory loses its name. False when there was none. */
  remove(sequence: number): boolean {
    const staged = join(this.#directory, temporaryName());
    this.#catalog.forget(sequence);
    try {
      renameSync(this.pathsOf(sequence).root, staged);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
      throw toCairnError(error, `remove the point with sequence number ${sequence}`);
    }
    fsyncDirectory(this.#directory);
    failpoint("point-removed");
    removeAll(staged);
    this.#catalog.compact(new Set(this.sequences()));
    return true;
  }

  /**
   * Removes points: each is gone when its directory has left. One sync for all, so after a power cut some may be
   * back; the caller's journal knows. Absent ones are fine.
   */
  removeAll(sequences: readonly number[]): number {
    const staged = join(this.#directory, temporaryName());
    mkdirSync(staged, { mode: 0o700 });
    this.#catalog.forget(...sequences);
    let removed = 0;
    for (const sequence of sequences) {
      try {
        renameSync(this.pathsOf(sequence).root, join(staged, pointDirectoryName(sequence)));
        removed++;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT")
          throw toCairnError(error, `remove the point with sequence number ${sequence}`);
      }
      failpoint("points.moved-away");
    }
    fsyncDirectory(this.#directory);
    failpoint("points.gone");
    removeAll(staged);
    forgetListing(this.#directory);
    this.#catalog.compact(new Set(this.sequences()));
    return removed;
  }

  /** Removes what a killed removal left. Only for the holder of the workspace's lock. */
  removeMovedAway(): void {
    removeLeftovers(this.#directory, undefined, { exclusive: true });
  }

  /** Seals a point: from now on it reads as if it had been read when it was made. Durable by rename. */
  seal(sequence: number, seal: SealFile): Point {
    durableWrite(this.pathsOf(sequence).seal, encodeSealFile(seal));
    return this.read(sequence);
  }

  writePin(sequence: number, pin: PinFile | null): void {
    const { pin: path } = this.pathsOf(sequence);
    if (pin === null) durableRemove(path);
    else durableWrite(path, encodePin(pin));
  }

  writeTags(sequence: number, tags: readonly string[]): void {
    durableWrite(this.pathsOf(sequence).tags, encodeTags({ tags: [...tags] }));
  }

  writeVerification(sequence: number, verification: VerificationFile): void {
    durableWrite(this.pathsOf(sequence).verification, encodeVerification(verification));
  }

  /** Forgets what was read from the catalog, e.g. after waiting for the lock. */
  refresh(): void {
    this.#catalog.refresh();
    forgetListing(this.#directory);
  }
}

/** Only what a save leaves before its commit; anything else in the directory is not ours to remove. */
function isUnfinished(root: string): boolean {
  return readdirSync(root).every((name) => name.startsWith(".cairn-tmp-") || name === "intent");
}

const UNREADABLE_PIN: PinFile = { at: new Date(0).toISOString(), reason: "its pin file cannot be read" };

/** The descriptor with what its seal adds. Throws `damaged` when there is a seal that cannot be read. */
function sealedOrNot(paths: PointPaths, descriptor: Descriptor, names: readonly string[]): Descriptor {
  if (descriptor.content.tree !== "" || !names.includes("seal.json")) return descriptor;
  const bytes = readSmallFile(paths.seal, MAX_DESCRIPTOR_BYTES);
  if (bytes === null) return descriptor;
  try {
    const seal = decodeSealFile(bytes);
    if (seal.save_point_id !== descriptor.save_point_id) throw new CairnError("damaged", "it is another point's");
    return sealedDescriptor(descriptor, seal);
  } catch (error) {
    const failed = toCairnError(error);
    throw new CairnError(failed.code, `${paths.seal}: ${failed.message}`, {
      hint: failed.hint ?? "remove that file: the point is sealed again from its tree",
      cause: error,
    });
  }
}

function checkedDescriptor(path: string, bytes: Uint8Array, sequence: number): Descriptor {
  let descriptor: Descriptor;
  try {
    descriptor = decodeDescriptorFile(bytes);
  } catch (error) {
    const failed = toCairnError(error);
    throw new CairnError(failed.code, `${path}: ${failed.message}`, {
      hint: failed.hint ?? "see `cairn doctor`",
      cause: error,
    });
  }
  if (descriptor.sequence === sequence) return descriptor;
  throw new CairnError("damaged", `${path} says it is number ${descriptor.sequence}`, { hint: "see `cairn doctor`" });
}

/** A point of its descriptor's bytes and of the files beside it, of which there are those with `names`. */
function pointOf(
  paths: PointPaths,
  bytes: Uint8Array,
  { sequence, names }: { sequence: number; names: readonly string[] },
): Point {
  const descriptor = sealedOrNot(paths, checkedDescriptor(paths.descriptor, bytes, sequence), names);
  const problems: CairnError[] = [];
  let pinIsUnreadable = false;
  const sidecar = <T>(path: string, decode: (content: Uint8Array) => T): T | null => {
    if (!names.includes(path.slice(paths.root.length + 1))) return null;
    try {
      const content = readSmallFile(path, MAX_SIDECAR_BYTES);
      return content === null ? null : decode(content);
    } catch (error) {
      const failed = toCairnError(error);
      problems.push(new CairnError(failed.code, `${path}: ${failed.message}`, { cause: error }));
      pinIsUnreadable ||= path === paths.pin;
      return null;
    }
  };
  const tags = sidecar<TagsFile>(paths.tags, decodeTags)?.tags ?? descriptor.tags;
  // A pin that cannot be read still pins: the doubt is the point's benefit.
  const pin = sidecar<PinFile>(paths.pin, decodePin) ?? (pinIsUnreadable ? UNREADABLE_PIN : null);
  const verification = sidecar<VerificationFile>(paths.verification, decodeVerification);
  return {
    sequence,
    descriptor,
    checksum: hash("sha256", bytes, "hex"),
    sealed: descriptor.content.tree !== "",
    pin,
    tags,
    verification,
    problems,
  };
}
