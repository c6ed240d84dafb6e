import { parentPort } from "node:worker_threads";
import { toCairnError } from "../../errors.ts";
import { TableFull } from "../../fs/scan-table.ts";
import type { LinkGroups } from "./build-trees.ts";
import { buildTrees } from "./build-trees.ts";
import { scanDirectories } from "./scan-directories.ts";
import { ScanThread } from "./scan-thread.ts";
import { type ExtraBlob, StoreSink, type StoreSinkTask, type ThreadPacks } from "./store-sink.ts";
import type { ScanNotes, ScanTask } from "./task.ts";

/** What the main thread posts, in this order; `end` may come at any time. */
export type ScanRequest =
  | { kind: "scan"; task: ScanTask; thread: number; store: StoreSinkTask | null }
  | { kind: "trees"; groups: LinkGroups }
  | { kind: "tail"; tails: ThreadPacks["tails"]; blobs: ExtraBlob[] }
  | { kind: "abort" };

export type ScanReply =
  | { kind: "scanned"; notes: ScanNotes }
  | { kind: "built"; packs: ThreadPacks | null }
  | { kind: "finished"; packs: ThreadPacks }
  | { kind: "aborted" }
  | { kind: "failed"; code: string; message: string; full: boolean; hint?: string };

/** One thread of a scan, driven by requests; the same object runs inline where a thread is not worth its start. */
export class ScanRunner {
  #thread: ScanThread | undefined;
  #sink: StoreSink | null = null;

  handle(request: ScanRequest): ScanReply {
    try {
      return this.#run(request);
    } catch (error) {
      const failure = toCairnError(error);
      const full = error instanceof TableFull;
      return { kind: "failed", code: failure.code, message: failure.message, full, ...(failure.hint === undefined ? {} : { hint: failure.hint }) };
    }
  }

  #run(request: ScanRequest): ScanReply {
    switch (request.kind) {
      case "scan": {
        this.#sink = request.store === null ? null : new StoreSink(request.store);
        this.#thread = new ScanThread(request.task, request.thread, this.#sink);
        scanDirectories(this.#thread);
        return { kind: "scanned", notes: this.#thread.notes };
      }
      case "trees":
        buildTrees(this.#thread!, request.groups);
        this.#thread!.close();
        return { kind: "built", packs: this.#sink?.takePacks() ?? null };
      case "tail":
        return { kind: "finished", packs: this.#sink!.finish(request.tails, request.blobs) };
      case "abort":
        this.#sink?.abort();
        this.#thread?.close();
        return { kind: "aborted" };
    }
  }
}

if (parentPort !== null) {
  const port = parentPort;
  const runner = new ScanRunner();
  port.on("message", (request: ScanRequest) => port.postMessage(runner.handle(request)));
}
