import { warmThreads } from "../../threads/threads.ts";
import { SCAN, type ScanReply, type ScanRequest, ScanRunner } from "./scan-runner.ts";
import type { ForwardEvent } from "./store-sink.ts";

/** Whoever carries out the phases of a scan: a worker thread, or this one. */
export interface Scanner {
  ask(request: ScanRequest): Promise<ScanReply>;
  /** Called while something is asked. */
  onEvent: ((event: ForwardEvent) => void) | null;
}

/** A tree up to this many entries is scanned faster than a worker thread starts. */
export const INLINE_ENTRIES = 4000;
/** Bytes to be read beyond which threads are started for the rest: the event loop would wait for too long. */
export const INLINE_BYTES = 64 * 1024 * 1024;

/** Scans on the calling thread. */
export class InlineScanner implements Scanner {
  onEvent: Scanner["onEvent"] = null;
  // They start while this one goes on.
  readonly #runner = new ScanRunner(
    (event) => this.onEvent?.(event),
    () => warmThreads(SCAN),
  );

  async ask(request: ScanRequest): Promise<ScanReply> {
    return this.#runner.handle(request);
  }
}
