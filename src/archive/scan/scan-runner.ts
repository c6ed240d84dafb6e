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
      /** number of the scans that are made together, in this process: their new content goes into the same packs */
      group: number;
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
  /** `folder`: index of the folder in the list that `scanTogether()` was given */
  requests: ToThread & { folder: number };
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
  #group: number | undefined;
  /** by the index of the folder */
  #threads: ScanThread[] = [];
  readonly #onMuchRead: (() => void) | null;
  #sink: StoreSink | null = null;

  /** `onMuchRead`: called once this thread has read half of the bytes that it may read. */
  constructor(tell: (event: ForwardEvent) => void, onMuchRead: (() => void) | null = null) {
    this.#tell = tell;
    this.#onMuchRead = onMuchRead;
  }

  handle(request: ScanWork["requests"]): ScanReply {
    if (request.kind === "scan") this.#begin(request);
    const thread = this.#threads[request.folder]!;
    switch (request.kind) {
      case "scan":
        thread.unwanted = request.unwanted;
        scanDirectories(thread);
        return { kind: "scanned", notes: thread.notes };
      case "again":
        thread.notes.moved = [];
        thread.unwanted = request.unwanted;
        scanDirectories(thread);
        return { kind: "scanned", notes: thread.notes };
      case "captured":
        thread.notes = newScanNotes();
        try {
          readCaptured(thread, request.database);
        } finally {
          thread.endJob();
        }
        return { kind: "scanned", notes: thread.notes };
      case "help":
        scanDirectories(thread);
        return { kind: "scanned", notes: thread.notes };
      case "trees":
        buildTrees(thread, request.groups);
        thread.close();
        return { kind: "built", packs: this.#sink?.takePacks(request.keepTails) ?? null };
      case "tail":
        return { kind: "finished", packs: this.#sink!.finish(request.blobs, request.tails) };
      case "draft":
        return { kind: "drafted", draft: draftStatCache(request.temporary, thread.table, thread.old) };
      case "abort":
        this.#sink?.abort(request.leavesPacks);
        this.#sink = null;
        thread?.close();
        return { kind: "aborted" };
    }
  }
  #begin({ group, task, thread, store, folder }: Extract<ScanWork["requests"], { kind: "scan" }>): void {
    if (group !== this.#group) {
      this.#group = group;
      this.#threads = [];
      this.#sink = store === null ? null : new StoreSink(store, this.#tell);
    }
    this.#threads[folder] = new ScanThread(task, thread, { sink: this.#sink, onMuchRead: this.#onMuchRead });
  }
}

/** Carries out the phases of a scan: a worker thread, or the main thread. */
export interface Scanner {
  ask(request: ScanWork["requests"]): Promise<ScanReply>;
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

  async ask(request: ScanWork["requests"]): Promise<ScanReply> {
    return this.#runner.handle(request);
  }
}
