import { comparePaths, directoryOf, joinPath, latin1 } from "../../formats/bytes.ts";
import { append } from "../../append.ts";
import fs from "node:fs";
import { throwIfAborted, toCairnError } from "../../errors.ts";
import { devicesInMemory, keepsAttributeTimes, keepsContentTimes, keepsDirectoryTimes } from "../../fs/linux/mounts.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { isTableFull, C, D, DIRECTORY_FLAG, DIRECTORY_WORDS, RECORD_WORDS, ScanTable } from "../cache/scan-table.ts";
import type { StatCache, StatCacheDraft } from "../cache/stat-cache.ts";
import type { FinishedPack, PackTail } from "../../repository/packs/pack-writer.ts";
import type { LinkGroup, LinkGroups } from "./record-node.ts";
import { findLinkGroups, settleMoved, settleNames } from "./link-groups.ts";
import { omitBelow, type ChangeCounts, countChanges, type ScanSummary, summarise } from "./summary.ts";
import { chunkMemories } from "./large-files.ts";
import {
  firstFailure,
  giveBackThreads,
  takeThreads,
  type Thread,
  threadsAreWarm,
  warmThreads,
} from "../../threads/threads.ts";
import {
  type ExtraBlob,
  newSpill,
  requireWithin,
  type ScanStore,
  type Spilled,
  type StoreSinkTask,
} from "./store-sink.ts";
import { checkResting, type DatabaseCapture, type HeldAs, isRead, recordOf } from "./databases.ts";
import { ScanMemory } from "./scan-memory.ts";
import {
  INLINE_BYTES,
  INLINE_ENTRIES,
  InlineScanner,
  SCAN,
  type Scanner,
  type ScanReply,
  type ScanWork,
  type ToThread,
} from "./scan-runner.ts";
import {
  type CapturedLabel,
  FoundDifference,
  LIST_AGAIN,
  LIST_IF_CHANGED,
  mergeNotes,
  MOVED_REASON,
  newScanNotes,
  type NotedDatabase,
  type ScanNotes,
  type ScanRequest,
  type ScanTask,
  type TornEntry,
  type Unchanged,
  type UnwantedEntry,
} from "./task.ts";
import { clearAway } from "../../fs/remove-all.ts";
import { mountPointsIn, readsServed } from "../../fs/silent-mounts.ts";

export { ScanMemory };

/** Capacity without a previous scan, which gives no estimate; with one, twice its size plus a margin. */
const FIRST_CAPACITY = 2 ** 20;
const MARGIN = 4096;
const GROWTH = 8;
const PROGRESS_MS = 100;
/** Number of tries to read a database under a lock that another program ignores. */
const TRIES = 2;
const BROKEN_LOCK =
  "it was changed although Cairn held SQLite's lock: a program that ignores SQLite's locks writes to it";
/** The kernel's clock for change times may be behind by that much. */
const TICK_MS = 50;
const SLASH = Buffer.from("/");
/** The thread that merges the others' unfinished packs. */
const FINISHING = 0;

export interface ScanProgress {
  phase: "scanning" | "trees";
  /** entries, or trees */
  done: number;
  /** content read so far, to a few MiB */
  bytes?: number;
  /** the directory begun last, for people; during the scan phase */
  current?: string;
}

/** The progress of a scan that only reads again. Trees stay a phase of their own: `done` begins anew with them. */
export function asVerifying({ phase, done, bytes }: ScanProgress): {
  phase: "verifying" | "trees";
  done: number;
  bytes?: number;
} {
  return { phase: phase === "scanning" ? "verifying" : phase, done, ...(bytes === undefined ? {} : { bytes }) };
}

export interface ScanOptions {
  request: ScanRequest;
  /** the cache of the previous scan of the folder, if valid */
  cache: StatCache | null;
  /** the parts of the cache that need no scan */
  unchanged?: Unchanged | null;
  /** Directories whose names changed since the scan began, by path in latin1; null: only their times tell. */
  renamedIn?: (() => string[] | null) | undefined;
  /** The cache is used after this scan's operation too. */
  cacheStays?: boolean;
  /** The cache is of the state that the caller compares with: large changed files are not read. */
  quick?: boolean;
  /** look up each cached blob and tree id before using it */
  distrust?: boolean;
  chunkerPolynomial: string;
  /** files written since, from `loadWrittenFiles` */
  written?: ScanTable | null;
  /** takes new content; absent: the scan only compares */
  store?: ScanStore;
  /** captures databases in use, or those of a held tree; absent: they are files like any other */
  databases?:
    | { capture: DatabaseCapture; held: Omit<HeldAs, "tree"> | null; always?: readonly Uint8Array[] }
    | undefined;
  /** path for a draft of this scan's stat cache, which an idle thread writes; the caller finishes or removes it */
  draft?: string;
  /** Additional blobs to store with the trees, made from the finished scan. */
  finish?: (result: ScanResult) => ExtraBlob[];
  /** owns the scan's memory. The caller releases it once the result, with its views, is no longer used */
  memory: ScanMemory;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: ScanProgress) => void) | undefined;
}

export interface ScanResult {
  table: ScanTable;
  old: ScanTable | null;
  directories: number;
  notes: ScanNotes;
  groups: Map<string, LinkGroup>;
  /** of the root, 32 bytes each */
  tree: Uint8Array;
  state: Uint8Array;
  meta: Uint8Array;
  packs: FinishedPack[];
  /** new blobs of databases that are in no pack, and the file that has them, which the caller closes; null: no file */
  spilled: Spilled & { file: number | null };
  /** The stat cache of this scan, which an idle thread writes; null if it was not requested or would be of no use. */
  draft: Promise<StatCacheDraft | null> | null;
  /** Counts the scanned tree, once. */
  summarise(): ScanSummary;
  /** Counts the entries that differ from the table of the previous scan. */
  countChanges(): ChangeCounts;
}

/** The mounts inside the folder. None is left out without a look if the scan enters them. */
function mountsOf({ root, crossMounts }: ScanRequest): ScanTask["mounts"] {
  const inside = mountPointsIn(Buffer.from(root));
  if (crossMounts === true) for (const path of inside.keys()) inside.set(path, false);
  return inside;
}

/** True if the scan ends before a thread would have started. While a mount is silent, this thread must hear signals. */
function isForOneThread({ cache, unchanged, request }: ScanOptions): boolean {
  if (readsServed(Buffer.from(request.root), request.crossMounts === true)) return false;
  if (unchanged) return unchanged.lookedAt <= INLINE_ENTRIES;
  return cache !== null && cache.records <= INLINE_ENTRIES && !threadsAreWarm();
}

/** Number of entries to make room for; unchanged directories need no room for their entries. */
function capacityFor({ cache, unchanged }: ScanOptions): number {
  if (cache === null) return FIRST_CAPACITY;
  const expected = unchanged ? Math.max(unchanged.lookedAt, cache.directories) : cache.records;
  return expected * 2 + MARGIN;
}

/**
 * Scans a folder: entries, content ids, trees and digests; with a store, packs new content on the way. Throws {@link
 * FoundDifference} if `untilDifferent` is set and an entry differs.
 */
export async function scan(wanted: ScanOptions): Promise<ScanResult> {
  return (await scanTogether([wanted]))[0]!;
}

/**
 * Scans folders one after the other as {@link scan} does, with the memory, the store and the signal of the first. An entry
 * that moves between two of the folders meanwhile is in one state. All packs are in the last result.
 */
export async function scanTogether(wanted: readonly ScanOptions[]): Promise<ScanResult[]> {
  let all = wanted;
  let growth = 1;
  const { signal } = wanted[0]!;
  const take = async (): Promise<Thread<ScanWork>[]> => takeThreads({ kind: SCAN, signal });
  if (all.every(isForOneThread)) {
    let more: Thread<ScanWork>[] | undefined;
    const takeMore = async (): Promise<Thread<ScanWork>[]> => (more ??= await take());
    try {
      return await scanWith([new InlineScanner()], all, { growth, takeMore });
    } catch (error) {
      if (!isTableFull(error)) throw error;
      all = startOver(all);
    } finally {
      giveBackThreads(more ?? []);
    }
  }
  for (;;) {
    const threads = await take();
    let drafting: ScanResult["draft"] = null;
    try {
      const results = await scanWith(threads, all, { growth, takeMore: null });
      drafting = results[0]!.draft;
      return results;
    } catch (error) {
      if (!isTableFull(error)) throw error;
      all = startOver(all);
      growth *= GROWTH;
    } finally {
      if (drafting === null) giveBackThreads(threads);
      else {
        giveBackThreads(threads.slice(0, -1));
        void drafting.then(() => giveBackThreads(threads.slice(-1)));
      }
    }
  }
}

/**
 * Returns options for a scan after an abandoned one: its packs are gone, so their content is stored again, but already
 * forwarded content is not forwarded again.
 */
function startOver(all: readonly ScanOptions[]): ScanOptions[] {
  all[0]!.store?.index.beginSession();
  return all.map(({ store, ...options }) =>
    store === undefined ? options : { ...options, store: { ...store, forward: undefined } },
  );
}

/** Starts threads early if the cache's size shows that a scan will need them. */
export function prepareScan(statCache: string): void {
  const size = fs.lstatSync(statCache, { throwIfNoEntry: false })?.size;
  if (size === undefined || size > INLINE_ENTRIES * RECORD_WORDS * 4) warmThreads(SCAN);
}

/** Parts of scans that are made together. */
interface Together {
  /** factor of the usual capacity of a table */
  growth: number;
  /** Starts threads if the work exceeds this one, at the first call only; null if threads scan already. */
  takeMore: (() => Promise<Scanner[]>) | null;
  /** unique in this process */
  group: number;
  chunks: ReturnType<typeof chunkMemories>;
  packs: FinishedPack[];
  tails: PackTail[];
  forwardTails: PackTail[];
}

let groups = 0;

async function scanWith(
  threads: readonly Scanner[],
  all: readonly ScanOptions[],
  how: Pick<Together, "growth" | "takeMore">,
): Promise<ScanResult[]> {
  const { signal, memory } = all[0]!;
  throwIfAborted(signal);
  const chunks = chunkMemories(threads.length);
  const together: Together = { ...how, group: ++groups, chunks, packs: [], tails: [], forwardTails: [] };
  const scans = all.map((options, folder) => new Scan(options, threads, { together, folder }));
  let now = scans[0]!;
  const stop = (): void => scans.forEach((each) => each.stop());
  signal?.addEventListener("abort", stop, { once: true });
  const timer = all.every(({ onProgress }) => onProgress === undefined)
    ? undefined
    : setInterval(() => now.report(), PROGRESS_MS);
  try {
    for (now of scans) {
      await now.walk();
      if (scans.length > 1) now.report();
    }
    await settleMoved(scans);
    for (now of scans) await now.capture();
    // No thread reads a large file from here on. Small rings would make threads wait for each other.
    memory.giveBackRings();
    const results: ScanResult[] = [];
    for (now of scans) results.push(await now.build(now === scans.at(-1)));
    return results;
  } catch (error) {
    stop();
    for (const each of scans) await each.abandon(error);
    throw now.hasDifference && signal?.aborted !== true ? new FoundDifference() : error;
  } finally {
    clearInterval(timer);
    signal?.removeEventListener("abort", stop);
    for (const each of scans) each.close();
  }
}

class Scan {
  readonly #options: ScanOptions;
  readonly #threads: Scanner[];
  readonly #together: Together;
  readonly #folder: number;
  readonly #table: ScanTable;
  readonly #task: ScanTask;
  readonly #spilled: ScanResult["spilled"] = { file: null, blobs: [], trees: [] };
  #store: StoreSinkTask | null = null;
  #replies: ScanReply[] = [];
  #notes = newScanNotes();
  #phase: ScanProgress["phase"] = "scanning";
  /** Directories that were renamed or changed since they were listed, and directories of entries that have moved. */
  moved = new Set<number>();
  #renamed: readonly string[] | null = null;

  constructor(
    options: ScanOptions,
    threads: readonly Scanner[],
    { together, folder }: { together: Together; folder: number },
  ) {
    this.#options = options;
    this.#threads = [...threads];
    this.#together = together;
    this.#folder = folder;
    this.#table = new ScanTable(options.memory.table(capacityFor(options) * together.growth));
    const { request } = options;
    const trustsTimes = request.reread !== true && request.crossMounts !== true;
    this.#task = {
      request,
      began: Date.now(),
      table: this.#table.buffers,
      old: options.cache?.table.buffers ?? null,
      oldStays: options.cacheStays ?? false,
      unchanged: options.unchanged ?? null,
      written: request.reread === true ? null : (options.written?.buffers ?? null),
      captureIn: options.store?.directory ?? null,
      distrust: options.distrust ?? false,
      trustDirectoryTimes: trustsTimes && keepsDirectoryTimes(request.root),
      trustAttributeTimes: trustsTimes && keepsAttributeTimes(request.root),
      trustContentTimes: keepsContentTimes(request.root),
      devicesInMemory: request.crossMounts === true ? devicesInMemory(Buffer.from(request.root)) : [],
      mounts: mountsOf(request),
      quick: options.quick ?? false,
      capturesDatabases: options.databases !== undefined && options.store !== undefined,
      readLimit: together.takeMore === null ? Number.MAX_SAFE_INTEGER : INLINE_BYTES,
      chunkerPolynomial: options.chunkerPolynomial,
      ...together.chunks,
    };
    this.#hold(this.#task);
  }

  #hold(task: ScanTask): void {
    this.#options.memory.hold(this.#options.cacheStays === true ? { ...task, old: null } : task);
  }

  get table(): ScanTable {
    return this.#table;
  }

  get old(): ScanTable | null {
    return this.#options.cache?.table ?? null;
  }

  get root(): Uint8Array {
    return this.#task.request.root;
  }

  get began(): number {
    return this.#task.began;
  }

  get hasDifference(): boolean {
    return this.#table.control[C.DIFFERS] !== 0;
  }

  /** Reads the folder, once. */
  async walk(): Promise<void> {
    this.#addRoot();
    const store = (this.#store = this.#sinkTask());
    this.#passForwardedOn();
    const { group } = this.#together;
    await this.#noteReplies((thread) => ({ kind: "scan", group, task: this.#task, thread, store, unwanted: [] }));
  }

  async #noteReplies(request: (thread: number) => ToThread): Promise<void> {
    this.#replies = await this.#all(request);
    if (this.#table.control[C.PENDING]! > 0)
      append(this.#replies, await this.#goOn(this.#store, unwantedIn(this.#replies)));
    this.moved = new Set(notesIn(this.#replies).flatMap((notes) => notes.moved));
    this.#renamed = this.#options.renamedIn?.() ?? null;
  }

  /** Captures databases in use, and adds up the notes. */
  async capture(): Promise<void> {
    this.#notes = this.#merged(await this.#captured(notesIn(this.#replies)));
  }

  /** Builds the trees. The last scan of the group also completes the packs of all. */
  async build(isLast: boolean): Promise<ScanResult> {
    const [notes, { old }] = [this.#notes, this];
    if (notes.omitted.length > 0) omitBelow(this.#table);
    const links = findLinkGroups(this.#table, old, this.#settles(notes));
    this.#phase = "trees";
    const counts = countsOf(this.#table, old, links, notes);
    firstFailure(await Promise.allSettled([this.#build(links), this.#count(counts)]));
    throwIfAborted(this.#options.signal);
    this.#startDraft(notes);
    const result: ScanResult = {
      table: this.#table,
      old,
      directories: this.#table.control[C.DIRECTORIES]!,
      notes,
      groups: links,
      packs: this.#together.packs,
      spilled: this.#spilled,
      draft: this.#draft,
      ...counts,
      ...this.#rootDigests(),
    };
    if (isLast && this.#options.store !== undefined) await this.#finish(this.#options.finish?.(result) ?? []);
    this.#options.memory.done(this.#table.buffers);
    return result;
  }

  /** Ends the threads' work and removes its files. After a stop by the caller the finished packs stay for the next save. */
  async abandon(error: unknown): Promise<void> {
    await discardDraft(this.#draft);
    const leavesPacks = this.#options.signal?.aborted === true;
    await Promise.allSettled(this.#threads.map(async (thread) => this.#ask(thread, { kind: "abort", leavesPacks })));
    const { packs, tails, forwardTails } = this.#together;
    for (const { path } of [...(leavesPacks ? [] : packs), ...tails, ...forwardTails]) clearAway(path);
    if (this.#spilled.file !== null) fs.closeSync(this.#spilled.file);
    if (isTableFull(error)) this.#options.memory.abandon(this.#table.buffers);
  }

  close(): void {
    for (const thread of this.#threads) thread.onEvent = null;
  }

  /**
   * Returns a function that settles names of one inode with different results; undefined if there certainly are none.
   */
  #settles(notes: ScanNotes): ((differing: ReadonlySet<string>) => void) | undefined {
    const { request, quick } = this.#options;
    // A tree of clones does not change. A scan that reads less may know less of one name than of another.
    const { root, clonedFrom, unread } = request;
    if (clonedFrom !== undefined || quick === true || unread !== undefined || this.#table.control[C.RECORDS] === 0)
      return undefined;
    return (differing) => settleNames(this, { root, notes }, differing);
  }

  report(): void {
    const { control } = this.#table;
    const phase = this.#phase;
    this.#options.onProgress?.(
      phase === "trees"
        ? { phase, done: control[C.NEXT_TREE]! }
        : { phase, done: control[C.FILES_DONE]!, bytes: control[C.KIB_DONE]! * 1024, current: this.#current() },
    );
  }

  #current(): string {
    const { control, jobs } = this.#table;
    const last = Math.max(0, Atomics.load(control, C.NEXT_JOB) - 1);
    const directory = this.#table.directoryPath(Atomics.load(jobs, last * 4));
    return displayPath(Buffer.concat([this.#options.request.root, SLASH, directory])).path;
  }

  /** Counts here while the threads build trees, since the counts are needed afterwards. */
  async #count(counts: Pick<ScanResult, "summarise" | "countChanges">): Promise<void> {
    if (this.#threads.length === 1) return;
    // Without records of its own, the table is the previous one.
    if (this.#table.control[C.RECORDS] === 0) return;
    if (this.#options.cache !== null) counts.countChanges();
    if (this.#options.store !== undefined) counts.summarise();
  }

  stop(): void {
    Atomics.store(this.#table.control, C.STOP, 1);
    Atomics.add(this.#table.control, C.SIGNAL, 1);
    Atomics.notify(this.#table.control, C.SIGNAL);
  }

  #addRoot(): void {
    const table = this.#table;
    table.takeDirectory();
    table.directories[D.OLD] = this.#options.cache === null ? 0 : 1;
    table.jobs[3] = 1;
    table.control[C.JOBS] = 1;
    table.control[C.PENDING] = 1;
  }

  async #ask(thread: Scanner, request: ToThread): Promise<ScanReply> {
    return thread.ask({ ...request, folder: this.#folder });
  }

  async #all(request: (thread: number) => ToThread, threads: readonly Scanner[] = this.#threads): Promise<ScanReply[]> {
    const settled = await Promise.allSettled(
      threads.map(async (thread, i) => {
        try {
          return await this.#ask(thread, request(i));
        } catch (error) {
          // One failed thread ends the others, which would wait for it.
          this.stop();
          throw error;
        }
      }),
    );
    return firstFailure(settled);
  }

  /** True if an entry may have been renamed from a directory before its listing into one that had been listed. */
  mayLackMoved(): boolean {
    const { request, mounts, began } = this.#task;
    // A held tree stands still. A look for people, or for any difference, need not be whole.
    if (request.heldAt !== undefined || request.byTimes === true || request.untilDifferent === true) return false;
    if (this.#renamed !== null) return this.#renamed.length > 0;
    if (!keepsDirectoryTimes(request.root) || (request.crossMounts === true && mounts.size > 0)) return true;
    const isSetBack = Date.now() - began < performance.now() - this.#began - TICK_MS;
    return isSetBack || notesIn(this.#replies).some(({ changed }) => changed > 0);
  }

  readonly #began = performance.now();

  /** Lists the directories in `moved` again, and each other directory if it changed after its listing. */
  async listAgain(): Promise<void> {
    const [{ moved }, renamed] = [this, this.#renamed];
    const seen = new Set(renamed);
    const { control, directories, jobs } = this.#table;
    jobs.fill(0, 0, control[C.JOBS]! * 4);
    control[C.JOBS] = control[C.NEXT_JOB] = 0;
    for (let directory = 0; directory < control[C.DIRECTORIES]!; directory++) {
      if (directories[directory * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.OMITTED) continue;
      this.#table.clearDirectoryFlags(directory, DIRECTORY_FLAG.MOVED);
      const isMoved = moved.has(directory) || (seen.size > 0 && seen.has(latin1(this.#table.directoryPath(directory))));
      if (isMoved || renamed === null) this.#table.addJob(directory, 0, isMoved ? LIST_AGAIN : LIST_IF_CHANGED);
    }
    this.#foundMoved = true;
    const unwanted = unwantedIn(this.#replies);
    await this.#noteReplies(() => ({ kind: "again", unwanted }));
  }

  #foundMoved = false;

  /** Captures databases in use, lets one thread read them again, and checks the others. Returns all notes with the results. */
  async #captured(parts: ScanNotes[]): Promise<ScanNotes[]> {
    const { databases, store } = this.#options;
    const asked = (databases?.always ?? []).flatMap((path) => this.#placeOf(Buffer.from(path)) ?? []);
    const noted = this.#byPath([...parts.flatMap((notes) => notes.databases), ...asked]);
    const resting = this.#byPath(parts.flatMap((notes) => notes.resting));
    if (databases === undefined || store === undefined || noted.size + resting.size === 0) return parts;
    const captured: ScanNotes["captured"] = [];
    const read: ScanNotes[] = [];
    const capture = async (path: Buffer, database: NotedDatabase): Promise<void> => {
      const { labels, notes } = await this.#capture(path, database, { ...databases, store });
      append(captured, labels);
      append(read, notes);
    };
    try {
      for (const [path, database] of noted) await capture(Buffer.from(path, "latin1"), database);
      for (const [place, each] of resting) {
        // A folder that was listed again has other records.
        const record = recordOf(this.#table, each.directory, each.name);
        if (record < 0 || noted.has(place)) continue;
        const path = Buffer.from(place, "latin1");
        const [{ signal }, { root }] = [this.#options, this];
        const checked = await checkResting(record, { ...databases, path, root, signal, table: this.#table });
        if (checked === null) await capture(path, each);
        else captured.push(checked);
      }
    } finally {
      await databases.capture.close();
    }
    const labelOf = ({ path }: TornEntry): CapturedLabel | undefined =>
      captured.find((each) => comparePaths(each.path, path) === 0);
    const isTorn = ({ label }: { label: string }): boolean => label === "torn-possible";
    // The capture read these databases again. The label of a torn database says why it is torn.
    const before = (torn: TornEntry): boolean => labelOf(torn) === undefined;
    const during = (torn: TornEntry): boolean => torn.aspects !== undefined || labelOf(torn)?.label !== "torn-possible";
    const done = [
      ...parts.map((notes) => ({ ...notes, torn: notes.torn.filter(before) })),
      ...read.map((notes) => ({ ...notes, torn: notes.torn.filter(during) })),
    ];
    done[0]!.captured = captured.filter((each) => !isTorn(each));
    append(
      done[0]!.torn,
      captured.filter(isTorn).map(({ path, reason }) => ({ path, reason: reason! })),
    );
    return done;
  }

  /**
   * Captures one database: reads its own file while the file is held, or an image. Returns the notes of this reading,
   * and no label if the file is no database any more or could not be read.
   */
  async #capture(
    path: Buffer,
    { directory, name }: NotedDatabase,
    { capture, held: tree, store }: NonNullable<ScanOptions["databases"]> & { store: ScanStore },
  ): Promise<{ labels: CapturedLabel[]; notes: ScanNotes[] }> {
    const [{ signal }, { root }] = [this.#options, this];
    const full = Buffer.concat([root, SLASH, path]);
    // The wait for threads comes before the hold, during which programs cannot write to the database.
    const threads = await this.#readersOf(full);
    for (let tries = 1; ; tries++) {
      const how = tree !== null ? { tree: root, ...tree } : tries > 1 ? "image" : "own";
      const held = await capture.hold(full, { signal, how, scratch: store.directory });
      let isWhole = true;
      let notes: ScanNotes[];
      try {
        const given = held === null ? null : { image: held.image, sidecars: held.sidecars };
        const captured: ToThread = { kind: "captured", database: { directory, name, held: given } };
        // The others help until this job ends.
        Atomics.add(this.#table.control, C.PENDING, 1);
        const [reply] = await this.#all((thread) => (thread === 0 ? captured : { kind: "help" }), threads);
        notes = notesIn([reply!]);
      } finally {
        isWhole = (await held?.release()) ?? true;
      }
      if (held === null || !isRead(this.#table, { directory, name })) return { labels: [], notes };
      const recovered = tree !== null && held.image !== null;
      const apart = tree === null || held.sidecars.includes("-wal");
      const { label, reason } = isWhole ? held : ({ label: "torn-possible", reason: BROKEN_LOCK } as const);
      if (isWhole || tries === TRIES) return { labels: [{ path, label, reason, recovered, apart }], notes };
    }
  }

  /**
   * Threads that have one set of rings: one to read a captured file and cut it, the others to hash its chunks. The
   * caller's thread reads a large file alone if no thread can be started.
   */
  async #readersOf(file: Buffer): Promise<readonly Scanner[]> {
    if (this.#together.takeMore === null) return this.#threads;
    if (this.#threads.length === 1 && sizeOf(file) > INLINE_BYTES)
      try {
        await this.#goOn(this.#store, []);
      } catch (error) {
        if (this.#threads.length > 1 || toCairnError(error).code === "interrupted") throw error;
      }
    return this.#threads.length === 1 ? this.#threads : this.#threads.slice(1);
  }

  /** The directory and name of a path; null if its directory is unchanged, so that nothing in it is read. */
  #placeOf(path: Buffer): NotedDatabase | null {
    const wanted = directoryOf(path);
    const { control, directories } = this.#table;
    for (let directory = 0; directory < control[C.DIRECTORIES]!; directory++) {
      if (comparePaths(this.#table.directoryPath(directory), wanted) !== 0) continue;
      const isSame = (directories[directory * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.SAME) !== 0;
      return isSame ? null : { directory, name: path.subarray(path.lastIndexOf(0x2f) + 1) };
    }
    return null;
  }

  /** Returns a map from a database's path, in latin1, to the database. Leaves out databases whose folder moved away. */
  #byPath(databases: readonly NotedDatabase[]): Map<string, NotedDatabase> {
    const there = databases.filter(({ directory }) => !this.#table.isBelowGone(directory));
    return new Map(there.map((each) => [latin1(joinPath(this.#table.directoryPath(each.directory), each.name)), each]));
  }

  /** Merges the threads' notes, and adds directories that kept changing to the end. */
  #merged(parts: readonly ScanNotes[]): ScanNotes {
    const notes = mergeNotes(parts);
    // An entry that was read again may be noted twice.
    notes.omitted = notes.omitted.filter(({ path }, i, all) => i === 0 || comparePaths(path, all[i - 1]!.path) !== 0);
    if (!this.#foundMoved && this.moved.size === 0) return notes;
    omitBelow(this.#table);
    for (const directory of this.moved)
      if ((this.#table.directories[directory * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.OMITTED) === 0)
        notes.torn.push({ path: Uint8Array.from(this.#table.directoryPath(directory)), reason: MOVED_REASON });
    notes.mounts = notes.mounts.filter((path, i, all) => i === 0 || comparePaths(path, all[i - 1]!) !== 0);
    return notes;
  }

  /** Starts threads that scan the entries left by this one. */
  async #goOn(store: StoreSinkTask | null, unwanted: UnwantedEntry[]): Promise<ScanReply[]> {
    const more = await this.#together.takeMore!();
    append(this.#threads, more);
    this.#passForwardedOn();
    const task = { ...this.#task, readLimit: Number.MAX_SAFE_INTEGER, ...chunkMemories(more.length) };
    this.#hold(task);
    const { group } = this.#together;
    return this.#all((thread) => ({ kind: "scan", group, task, thread, store, unwanted }), more);
  }

  #sinkTask(): StoreSinkTask | null {
    const { store } = this.#options;
    if (store === undefined) return null;
    const { keys, index, directory, forward, taker, pages, mostBytes = null } = store;
    const file = (this.#spilled.file = pages === undefined ? null : newSpill(directory));
    const given = taker === undefined ? null : { style: taker.style, waiting: taker.waiting };
    return {
      keys,
      index: index.shared,
      directory,
      forward: forward?.task ?? null,
      taker: given,
      pages: file === null ? null : { index: pages!.shared, file, end: new SharedArrayBuffer(8) },
      ...(mostBytes === null ? {} : { bound: { mostBytes, stored: new SharedArrayBuffer(8) } }),
    };
  }

  /** Passes packs on until the scan ends. */
  #passForwardedOn(): void {
    const { forward, taker } = this.#options.store ?? {};
    if (forward === undefined && taker === undefined) return;
    for (const thread of this.#threads)
      thread.onEvent = (event) => {
        if ("stored" in event) taker?.onPack(event.stored);
        else forward?.onPack(event.forwarded, this.#current());
      };
  }

  /** Builds the trees, and collects the threads' packs, also the unfinished ones. */
  async #build(groups: Map<string, LinkGroup>): Promise<void> {
    const replies = await this.#all((thread) => ({ kind: "trees", groups, keepTails: thread === FINISHING }));
    for (const reply of replies) {
      if (reply.kind !== "built" || reply.packs === null) continue;
      append(this.#together.packs, reply.packs.packs);
      append(this.#together.tails, reply.packs.tails);
      append(this.#together.forwardTails, reply.packs.forwardTails);
      append(this.#spilled.blobs, reply.packs.spilled.blobs);
      append(this.#spilled.trees, reply.packs.spilled.trees);
    }
  }

  /** Lets the last thread, now idle, write the stat cache, unless the present cache describes the same state. */
  #startDraft(notes: ScanNotes): void {
    const { draft, cache } = this.#options;
    if (draft === undefined || this.#together.takeMore !== null || this.#threads.length < 2) return;
    if (cache !== null && notes.filesRead === 0 && Buffer.compare(cache.tree, this.#rootDigests().tree) === 0) return;
    this.#draft = this.#ask(this.#threads.at(-1)!, { kind: "draft", temporary: draft })
      .then((reply) => (reply.kind === "drafted" ? reply.draft : null))
      .catch(() => {
        clearAway(draft);
        return null;
      });
    this.#options.memory?.until(this.#draft);
  }

  #draft: ScanResult["draft"] = null;

  /** One thread merges the others' unfinished packs, so that a small change makes one pack of each type. */
  async #finish(blobs: ExtraBlob[]): Promise<void> {
    const { packs, tails, forwardTails } = this.#together;
    const reply = await this.#ask(this.#threads[FINISHING]!, { kind: "tail", tails: { tails, forwardTails }, blobs });
    if (reply.kind === "finished") append(packs, reply.packs.packs);
    this.#addGiven(this.#options.store!);
    this.#options.store?.forward?.onEnd();
  }

  /** Adds the packs that were given to the save at its beginning and whose blobs this folder needs. */
  #addGiven({ index, mostBytes = null }: ScanStore): void {
    const wanted = index.wantedPacks();
    const { packs } = this.#together;
    append(packs, wanted);
    if (wanted.length > 0 && mostBytes !== null)
      requireWithin(
        packs.reduce((sum, { size }) => sum + size, 0),
        mostBytes,
      );
  }

  #rootDigests(): { tree: Uint8Array; state: Uint8Array; meta: Uint8Array } {
    const at = (word: number): Uint8Array =>
      Uint8Array.from(this.#table.directoryBytes.subarray(word * 4, word * 4 + 32));
    return { tree: at(D.TREE), state: at(D.STATE), meta: at(D.META) };
  }
}

function countsOf(
  table: ScanTable,
  old: ScanTable | null,
  groups: LinkGroups,
  { omitted }: ScanNotes,
): Pick<ScanResult, "summarise" | "countChanges"> {
  let summary: ScanSummary | undefined;
  let changes: ChangeCounts | undefined;
  return {
    summarise: () => (summary ??= summarise(table, old, groups)),
    countChanges: () => (changes ??= countChanges(table, old, omitted)),
  };
}

/** Removes a draft that is not used. */
export async function discardDraft(draft: ScanResult["draft"]): Promise<void> {
  const written = await draft;
  if (written !== null) clearAway(written.temporary);
}

function notesIn(replies: readonly ScanReply[]): ScanNotes[] {
  return replies.flatMap((reply) => (reply.kind === "scanned" ? [reply.notes] : []));
}

function unwantedIn(replies: readonly ScanReply[]): UnwantedEntry[] {
  return notesIn(replies).flatMap(({ unwanted }) => unwanted);
}

/** Returns a file's size; 0 if that cannot be found out. */
function sizeOf(file: Buffer): number {
  try {
    return fs.statSync(file).size;
  } catch {
    return 0;
  }
}
