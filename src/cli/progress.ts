import type { Progress } from "../contract/index.ts";
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
  /** Milliseconds of a clock that never goes back. */
  clock?: () => number;
}

/** Shows progress on stderr. `finish` removes the line before other output. */
export interface ProgressReporter {
  report(progress: Progress): void;
  finish(): void;
  /** Prints the progress at once on request, whatever else is shown. */
  tell(): void;
}

type Shown = Omit<ProgressReporter, "tell">;

// Most commands end sooner, so nothing flickers.
const QUIET_START_MS = 300;
const BAR_EVERY_MS = 100;
const LINE_EVERY_MS = 2000;
const RATE_AFTER_MS = 1000;

export function makeProgress(sink: ProgressSink, options: ProgressOptions): ProgressReporter {
  const shown = shownOn(sink, options);
  let last: Progress | null = null;
  return {
    report(progress) {
      last = progress;
      shown.report(progress);
    },
    finish: () => shown.finish(),
    tell() {
      if (options.mode === "json") {
        if (last !== null) shown.report(last);
        return;
      }
      shown.finish();
      sink.write(`${last === null ? "no progress has been reported yet" : describeProgress(last)}\n`);
    },
  };
}

function shownOn(sink: ProgressSink, options: ProgressOptions): Shown {
  if (options.mode === "json") return jsonLines(sink);
  const clock = options.clock ?? monotonicMs;
  if (options.mode === "plain" && !options.quiet) return plainLines(sink, clock);
  return sink.isTerminal && !options.quiet ? bars(sink, clock) : { report() {}, finish() {} };
}

/** `performance` loads a module of 3 ms, and most commands print no progress. */
function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}

function jsonLines(sink: ProgressSink): Shown {
  return {
    report: (progress) => sink.write(`${printable(JSON.stringify(progress))}\n`),
    finish() {},
  };
}

function plainLines(sink: ProgressSink, clock: () => number): Shown {
  const began = clock();
  let last = began;
  /** The last printed phase, until its end is printed. */
  let open: string | null = null;
  const rate = makeRate(clock);
  return {
    report(progress) {
      const speed = rate(progress);
      const { phase, done, total } = progress;
      const isEnd = total !== undefined && done >= total;
      if (clock() - last < LINE_EVERY_MS && !(isEnd && open === phase)) return;
      last = clock();
      open = isEnd ? null : phase;
      sink.write(`${elapsed(last - began)} ${describeProgress(progress, speed)}\n`);
    },
    finish() {},
  };
}

function bars(sink: ProgressSink, clock: () => number): Shown {
  const began = clock();
  let next = began + QUIET_START_MS;
  let shown = false;
  const rate = makeRate(clock);
  return {
    report(progress) {
      const speed = rate(progress);
      if (clock() < next) return;
      next = clock() + BAR_EVERY_MS;
      shown = true;
      const room = Math.max(20, sink.columns - 1);
      const line = `${drawBar(progress, sink.columns)}${elapsed(clock() - began)} ${describeProgress(progress, speed)}`;
      sink.write(`\r\u001b[2K${line.slice(0, room)}`);
    },
    finish() {
      if (shown) sink.write("\r\u001b[2K");
      shown = false;
      next = clock() + BAR_EVERY_MS;
    },
  };
}

/** Bytes per second since the phase began; null at the start of a phase, and without bytes. */
function makeRate(clock: () => number): (progress: Progress) => number | null {
  let [phase, began, from] = ["", 0, 0];
  return (progress) => {
    const { bytes = 0 } = progress;
    if (progress.phase !== phase || bytes < from) [phase, began, from] = [progress.phase, clock(), bytes];
    const passed = clock() - began;
    return passed < RATE_AFTER_MS || bytes === from ? null : ((bytes - from) * 1000) / passed;
  };
}

/** A line of 80 columns must have room for the bytes sent and the remaining time. */
function drawBar(progress: Progress, columns: number): string {
  const width = columns < 100 ? 10 : 20;
  const isEnd = progress.total !== undefined && progress.done >= progress.total;
  const parts = [
    [progress.done, isOfBytes(progress) ? 0 : progress.total],
    [progress.bytes, progress.total_bytes],
  ].flatMap(([done = 0, total = 0]) => (total > 0 ? [Math.min(1, Math.max(0, done / total))] : []));
  if ((progress.total === undefined && !isOfBytes(progress)) || parts.length === 0) return "";
  // Entries and bytes have equal weight: one large file moves the bar, and so do many small ones.
  const part = Math.min(isEnd ? 1 : 0.99, parts.reduce((sum, each) => sum + each, 0) / parts.length);
  const full = Math.floor(part * width);
  return `${"█".repeat(full)}${"░".repeat(width - full)} ${String(Math.floor(part * 100)).padStart(3)} %  `;
}

/** True for transfers over a network, in which only bytes count. */
function isOfBytes({ phase, total_bytes = 0 }: Progress): boolean {
  return (phase === "uploading" || phase === "downloading") && total_bytes > 0;
}

/** `0:42`, `1:02:03` since the command began. */
function elapsed(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  if (parts[0] === 0) parts.shift();
  return parts.map((part, at) => (at === 0 ? String(part) : String(part).padStart(2, "0"))).join(":");
}

/** `storing 1,200 of 5,000, 31 MiB, 12 MiB/s  src/a.ts`. For transfers only the bytes, once they are known. */
export function describeProgress(progress: Progress, bytesPerSecond: number | null = null): string {
  let text: string = progress.phase === "trees" ? "listing folders" : progress.phase;
  const isLine = isOfBytes(progress);
  if (!isLine) {
    if (progress.done > 0 || progress.total !== undefined || (progress.bytes ?? 0) > 0)
      text += ` ${formatCount(progress.done)}`;
    if (progress.total !== undefined) text += ` of ${formatCount(progress.total)}`;
  }
  if (progress.bytes !== undefined && (progress.bytes > 0 || isLine)) {
    text += `${isLine ? "" : ","} ${formatBytes(progress.bytes)}`;
    if (progress.total_bytes !== undefined && progress.total_bytes >= progress.bytes)
      text += ` of ${formatBytes(progress.total_bytes)}`;
    if (bytesPerSecond !== null) text += `, ${formatBytes(bytesPerSecond)}/s`;
    if (bytesPerSecond !== null && (progress.total_bytes ?? 0) > progress.bytes)
      text += `, ${remaining((progress.total_bytes! - progress.bytes) / bytesPerSecond)} left`;
  }
  if (progress.current !== undefined) text += `  ${shortened(printable(progress.current))}`;
  return text;
}

const LONGEST_SHOWN = 120;

/** Shortens a deep path to its ends, for a readable line. */
function shortened(shown: string): string {
  if (shown.length <= LONGEST_SHOWN) return shown;
  const half = Math.floor(LONGEST_SHOWN / 2);
  return `${shown.slice(0, half - 1)}…${shown.slice(-half)}`;
}

/** `12 s`, `3 min`, `2.5 h`: no more precise than an estimate from a rate. */
function remaining(seconds: number): string {
  if (seconds < 100) return `${Math.max(1, Math.ceil(seconds))} s`;
  return seconds < 6000 ? `${Math.ceil(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
