import { warmThreads } from "../../threads/threads.ts";
import type { KindOfWork } from "../../threads/worker-thread.ts";
import type { LinkGroups } from "./record-node.ts";
import { draftStatCache, type StatCacheDraft } from "../cache/stat-cache.ts";
import { buildTrees } from "./build-trees.ts";
import { type CapturedDatabase, readCaptured } from "./read-captured.ts";
import { scanDirectories } from "./scan-directories.ts";
import { ScanThread } from "./scan-thread.ts";
import {
  type ExtraBlob,
  type ForwardEvent,
  type OtherTails,
  StoreSink,
  type StoreSinkTask,
  type ThreadPacks,
} from "./store-sink.ts";
import { newScanNotes, type ScanNotes, type ScanTask, type UnwantedEntry } from "./task.ts";

/**
 * Messages of the main thread to a thread of a scan, in this order:
 * - `scan`, then `again` for jobs queued meanwhile, any number of times: answered with all notes so far
 * - `captured` for a database, any number of times: answered with the notes of this reading. Meanwhile the other
 *   threads get `help` and hash the database's chunks
 * - `trees`, then `tail` to the thread that kept its unfinished packs, and `draft` to another thread
 *
 * `abort` may come at any time.
 */
export type ToThread =
  | {
      kind: "scan";
      task: ScanTask;
      thread: number;
      store: StoreSinkTask | null;
      unwanted: UnwantedEntry[];
    }
  | { kind: "again"; unwanted: UnwantedEntry[] }
  | { kind: "captured"; database: CapturedDatabase }
  | { kind: "help" }
  | { kind: "trees"; groups: LinkGroups; keepTails: boolean }
  | { kind: "tail"; tails: OtherTails; blobs: ExtraBlob[] }
  | { kind: "draft"; temporary: string }
  | { kind: "abort"; leavesPacks: boolean };

export interface ScanWork {
  requests: ToThread;
  replies: Record<ToThread["kind"], ScanReply>;
  events: ForwardEvent;
}

/** Kind of work of threads that scan a folder. */
export const SCAN = "scan" as KindOfWork<ScanWork>;

export type ScanReply =
  | { kind: "scanned"; notes: ScanNotes }
  | { kind: "built"; packs: ThreadPacks | null }
  | { kind: "finished"; packs: ThreadPacks }
  | { kind: "drafted"; draft: StatCacheDraft }
  | { kind: "aborted" };

/** One thread of a scan, driven by requests. The same object runs in the main thread if starting a thread is not worth it. */
export class ScanRunner {
  readonly #tell: (event: ForwardEvent) => void;
  #thread: ScanThread | undefined;
  readonly #onMuchRead: (() => void) | null;
  #sink: StoreSink | null = null;

  /** `onMuchRead`: called once this thread has read half of the bytes that it may read. */
  constructor(tell: (event: ForwardEvent) => void, onMuchRead: (() => void) | null = null) {
    this.#tell = tell;
    this.#onMuchRead = onMuchRead;
  }

  handle(request: ToThread): ScanReply {
    switch (request.kind) {
      case "scan": {
        this.#sink = request.store === null ? null : new StoreSink(request.store, this.#tell);
        this.#thread = new ScanThread(request.task, request.thread, { sink: this.#sink, onMuchRead: this.#onMuchRead });
        this.#thread.unwanted = request.unwanted;
        scanDirectories(this.#thread);
        return { kind: "scanned", notes: this.#thread.notes };
      }
      case "again":
        this.#thread!.notes.moved = [];
        this.#thread!.unwanted = request.unwanted;
        scanDirectories(this.#thread!);
        return { kind: "scanned", notes: this.#thread!.notes };
      case "captured":
        this.#thread!.notes = newScanNotes();
        try {
          readCaptured(this.#thread!, request.database);
        } finally {
          this.#thread!.endJob();
        }
        return { kind: "scanned", notes: this.#thread!.notes };
      case "help":
        scanDirectories(this.#thread!);
        return { kind: "scanned", notes: this.#thread!.notes };
      case "trees":
        buildTrees(this.#thread!, request.groups);
        this.#thread!.close();
        return { kind: "built", packs: this.#sink?.takePacks(request.keepTails) ?? null };
      case "tail":
        return { kind: "finished", packs: this.#sink!.finish(request.blobs, request.tails) };
      case "draft":
        return { kind: "drafted", draft: draftStatCache(request.temporary, this.#thread!.table, this.#thread!.old) };
      case "abort":
        this.#sink?.abort(request.leavesPacks);
        this.#thread?.close();
        return { kind: "aborted" };
    }
  }
}

/** Carries out the phases of a scan: a worker thread, or the main thread. */
export interface Scanner {
  ask(request: ToThread): Promise<ScanReply>;
  /** Called with events during a request. */
  onEvent: ((event: ForwardEvent) => void) | null;
}

/** A tree of at most this many entries is scanned faster than a worker thread starts. */
export const INLINE_ENTRIES = 4000;
/** If more bytes have to be read, threads are started for the rest: the event loop would be blocked for too long. */
export const INLINE_BYTES = 64 * 1024 * 1024;

/** Scans on the calling thread. */
export class InlineScanner implements Scanner {
  onEvent: Scanner["onEvent"] = null;
  // The threads start while this one goes on.
  readonly #runner = new ScanRunner(
    (event) => this.onEvent?.(event),
    () => warmThreads(SCAN),
  );

  async ask(request: ToThread): Promise<ScanReply> {
    return this.#runner.handle(request);
  }
}
