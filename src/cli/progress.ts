import type { Progress } from "../operations/contract.ts";
import { formatBytes, formatCount, printable } from "./render/format.ts";

export type ProgressMode = "auto" | "plain" | "json";

export interface ProgressSink {
  write(text: string): void;
  isTerminal: boolean;
  columns: number;
}

export interface ProgressOptions {
  mode: ProgressMode;
  quiet: boolean;
  /** Milliseconds on any clock that never goes back. */
  clock?: () => number;
}

/** Shows progress on stderr; `finish` takes it away before anything else is written there. */
export interface ProgressReporter {
  report(progress: Progress): void;
  finish(): void;
}

// Most commands are done before this: nothing flickers.
const QUIET_START_MS = 300;
const BAR_EVERY_MS = 100;
const LINE_EVERY_MS = 2000;

export function makeProgress(sink: ProgressSink, options: ProgressOptions): ProgressReporter {
  if (options.mode === "json") return jsonLines(sink);
  if (options.quiet) return { report() {}, finish() {} };
  const clock = options.clock ?? monotonicMs;
  return options.mode === "auto" && sink.isTerminal ? bars(sink, clock) : plainLines(sink, clock);
}

/** `performance` loads a module of 3 ms, and most commands say nothing. */
function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}

function jsonLines(sink: ProgressSink): ProgressReporter {
  return {
    report: (progress) => sink.write(`${JSON.stringify(progress)}\n`),
    finish() {},
  };
}

function plainLines(sink: ProgressSink, clock: () => number): ProgressReporter {
  let last = clock();
  return {
    report(progress) {
      if (clock() - last < LINE_EVERY_MS) return;
      last = clock();
      sink.write(`${describeProgress(progress)}\n`);
    },
    finish() {},
  };
}

function bars(sink: ProgressSink, clock: () => number): ProgressReporter {
  let next = clock() + QUIET_START_MS;
  let shown = false;
  return {
    report(progress) {
      if (clock() < next) return;
      next = clock() + BAR_EVERY_MS;
      shown = true;
      const room = Math.max(20, sink.columns - 1);
      sink.write(`\r\u001b[2K${(drawBar(progress) + describeProgress(progress)).slice(0, room)}`);
    },
    finish() {
      if (shown) sink.write("\r\u001b[2K");
      shown = false;
      next = clock() + BAR_EVERY_MS;
    },
  };
}

const BAR_WIDTH = 20;

function drawBar(progress: Progress): string {
  if (progress.total === undefined || progress.total <= 0) return "";
  const part = Math.min(1, Math.max(0, progress.done / progress.total));
  const full = Math.floor(part * BAR_WIDTH);
  return `${"█".repeat(full)}${"░".repeat(BAR_WIDTH - full)} ${String(Math.floor(part * 100)).padStart(3)} %  `;
}

/** `storing 1,200 of 5,000, 31 MiB  src/a.ts` */
export function describeProgress(progress: Progress): string {
  let text: string = progress.phase;
  if (progress.done > 0 || progress.total !== undefined) text += ` ${formatCount(progress.done)}`;
  if (progress.total !== undefined) text += ` of ${formatCount(progress.total)}`;
  if (progress.bytes !== undefined && progress.bytes > 0) text += `, ${formatBytes(progress.bytes)}`;
  if (progress.current !== undefined) text += `  ${printable(progress.current)}`;
  return text;
}
