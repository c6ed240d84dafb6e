import { diffArrays } from "diff";

/** Differences of two texts by lines, as in `diff -u`. */

export interface Hunk {
  /** First line on each side, from 1. If a side has no lines: the line before. */
  old_start: number;
  old_lines: number;
  new_start: number;
  new_lines: number;
  /** The nearest line above the hunk that begins with a letter, `_` or `$`, shortened: often the name of a function. */
  section: string | null;
  /** `+`, `-` or a blank, and the line; also `\ No newline at end of file` after a last line without one. */
  lines: string[];
}

export interface TextDiffOptions {
  /** Lines around each difference. Default 3. */
  context?: number | undefined;
  /** Lines are equal if they differ only in blanks. */
  ignoreWhitespace?: boolean | undefined;
}

/** A run of lines: equal on both sides, or lines of `a` replaced by lines of `b`. */
interface Run {
  isEqual: boolean;
  a: readonly [from: number, to: number];
  b: readonly [from: number, to: number];
}

// The limit of the search for the shortest difference, which may take minutes. Such different texts make no readable
// diff.
const TIMEOUT_MS = 1000;
const NO_NEWLINE = "\\ No newline at end of file";

/** Returns the hunks that turn one text into the other. Null if the texts differ so much that the search takes too long. */
export function textHunks(before: string, after: string, options: TextDiffOptions = {}): Hunk[] | null {
  const [a, b] = [linesOf(before), linesOf(after)];
  const runs = new LineComparison(a, b, options.ignoreWhitespace === true).runs();
  return runs === null ? null : hunksOf(runs, a, b, options.context ?? 3);
}

const DECODER = new TextDecoder("utf-8", { fatal: true });

/** Decodes a text: UTF-8 without NUL. Null if the bytes are no such text. */
export function decodeText(bytes: Uint8Array): string | null {
  if (bytes.includes(0)) return null;
  try {
    return DECODER.decode(bytes);
  } catch {
    return null;
  }
}

function linesOf(text: string): string[] {
  return text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
}

/**
 * Compares by anchors first: lines that occur once on each side, in their longest common order. The short parts between
 * anchors are compared for the shortest difference, without lines of one side alone. So texts without common lines are
 * fast.
 */
class LineComparison {
  readonly #a: Int32Array;
  readonly #b: Int32Array;
  readonly #until = performance.now() + TIMEOUT_MS;
  #runs: Run[] = [];

  constructor(a: readonly string[], b: readonly string[], ignoreWhitespace: boolean) {
    const numbers = new Map<string, number>();
    const numbered = (line: string): number => {
      const key = ignoreWhitespace ? line.replaceAll(/\s+/g, " ").trim() : line;
      const known = numbers.get(key);
      if (known !== undefined) return known;
      numbers.set(key, numbers.size);
      return numbers.size - 1;
    };
    this.#a = Int32Array.from(a, numbered);
    this.#b = Int32Array.from(b, numbered);
  }

  runs(): Run[] | null {
    this.#runs = [];
    return this.#compare(0, this.#a.length, 0, this.#b.length) ? this.#runs : null;
  }

  #compare(aFrom: number, aTo: number, bFrom: number, bTo: number): boolean {
    let [head, tail] = [0, 0];
    const most = Math.min(aTo - aFrom, bTo - bFrom);
    while (head < most && this.#a[aFrom + head] === this.#b[bFrom + head]) head++;
    while (tail < most - head && this.#a[aTo - 1 - tail] === this.#b[bTo - 1 - tail]) tail++;
    this.#equal(aFrom, bFrom, head);
    if (!this.#between(aFrom + head, aTo - tail, bFrom + head, bTo - tail)) return false;
    this.#equal(aTo - tail, bTo - tail, tail);
    return true;
  }

  #between(aFrom: number, aTo: number, bFrom: number, bTo: number): boolean {
    if (aFrom === aTo || bFrom === bTo) return this.#replaced(aFrom, aTo, bFrom, bTo);
    // The search repeats for lines that are unique only between two anchors, so it may take long.
    if (performance.now() > this.#until) return false;
    const anchors = this.#anchors(aFrom, aTo, bFrom, bTo);
    if (anchors.length === 0) return this.#shortest(aFrom, aTo, bFrom, bTo);
    let [a, b] = [aFrom, bFrom];
    for (const [nextA, nextB] of anchors) {
      // An anchor may be among the equal lines after the anchor before.
      if (nextA < a || nextB < b) continue;
      if (!this.#compare(a, nextA, b, nextB)) return false;
      let length = 1;
      while (nextA + length < aTo && nextB + length < bTo && this.#a[nextA + length] === this.#b[nextB + length])
        length++;
      this.#equal(nextA, nextB, length);
      [a, b] = [nextA + length, nextB + length];
    }
    return this.#compare(a, aTo, b, bTo);
  }

  /** Returns lines that occur once on each side, in the longest order that both sides have. */
  #anchors(aFrom: number, aTo: number, bFrom: number, bTo: number): [number, number][] {
    const inA = placesOf(this.#a, aFrom, aTo);
    const inB = placesOf(this.#b, bFrom, bTo);
    const pairs: [number, number][] = [];
    for (const [line, at] of inA) if (at >= 0 && (inB.get(line) ?? -1) >= 0) pairs.push([at, inB.get(line)!]);
    return longestRising(pairs.sort(([left], [right]) => left - right));
  }

  /** Compares the lines that occur on both sides by their shortest difference. */
  #shortest(aFrom: number, aTo: number, bFrom: number, bTo: number): boolean {
    const [inA, inB] = [new Set(this.#a.subarray(aFrom, aTo)), new Set(this.#b.subarray(bFrom, bTo))];
    const [ofA, ofB]: number[][] = [[], []];
    for (let at = aFrom; at < aTo; at++) if (inB.has(this.#a[at]!)) ofA!.push(at);
    for (let at = bFrom; at < bTo; at++) if (inA.has(this.#b[at]!)) ofB!.push(at);
    const timeout = this.#until - performance.now();
    if (timeout <= 0) return false;
    const [a, b] = [ofA!, ofB!];
    const changes = diffArrays(
      a.map((at) => this.#a[at]!),
      b.map((at) => this.#b[at]!),
      { timeout },
    ) as ReturnType<typeof diffArrays> | undefined;
    if (changes === undefined) return false;
    let [i, j, nextA, nextB] = [0, 0, aFrom, bFrom];
    for (const { added, removed, value } of changes) {
      if (added) j += value.length;
      else if (removed) i += value.length;
      else
        for (let n = 0; n < value.length; n++) {
          const [atA, atB] = [a[i++]!, b[j++]!];
          this.#replaced(nextA, atA, nextB, atB);
          this.#equal(atA, atB, 1);
          [nextA, nextB] = [atA + 1, atB + 1];
        }
    }
    return this.#replaced(nextA, aTo, nextB, bTo);
  }

  #equal(a: number, b: number, length: number): void {
    this.#add({ isEqual: true, a: [a, a + length], b: [b, b + length] });
  }

  #replaced(aFrom: number, aTo: number, bFrom: number, bTo: number): true {
    this.#add({ isEqual: false, a: [aFrom, aTo], b: [bFrom, bTo] });
    return true;
  }

  #add({ isEqual, a, b }: Run): void {
    if (a[0] === a[1] && b[0] === b[1]) return;
    const last = this.#runs.at(-1);
    if (last?.isEqual === isEqual)
      this.#runs[this.#runs.length - 1] = { isEqual, a: [last.a[0], a[1]], b: [last.b[0], b[1]] };
    else this.#runs.push({ isEqual, a, b });
  }
}

/** Returns the position of each line that occurs once; -1 for a line that occurs more often. */
function placesOf(lines: Int32Array, from: number, to: number): Map<number, number> {
  const places = new Map<number, number>();
  for (let at = from; at < to; at++) places.set(lines[at]!, places.has(lines[at]!) ? -1 : at);
  return places;
}

/** Returns the longest row of pairs, given in the order of their first numbers, whose second numbers rise too. */
function longestRising(pairs: readonly [number, number][]): [number, number][] {
  const tops: number[] = [];
  const before = new Int32Array(pairs.length).fill(-1);
  for (const [i, [, value]] of pairs.entries()) {
    let [low, high] = [0, tops.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (pairs[tops[middle]!]![1] < value) low = middle + 1;
      else high = middle;
    }
    if (low > 0) before[i] = tops[low - 1]!;
    tops[low] = i;
  }
  const found: [number, number][] = [];
  for (let i = tops.at(-1) ?? -1; i >= 0; i = before[i]!) found.push(pairs[i]!);
  return found.reverse();
}

function hunksOf(runs: readonly Run[], a: readonly string[], b: readonly string[], context: number): Hunk[] {
  const hunks: Hunk[] = [];
  const changed = runs.filter(({ isEqual }) => !isEqual);
  for (let i = 0; i < changed.length;) {
    let end = i + 1;
    while (end < changed.length && changed[end]!.a[0] - changed[end - 1]!.a[1] <= 2 * context) end++;
    hunks.push(hunkOf(changed.slice(i, end), a, b, context));
    i = end;
  }
  return hunks;
}

/** Lines above a hunk in which its section is looked for. */
const SECTION_LINES = 10_000;
const SECTION_LENGTH = 80;

function sectionAbove(lines: readonly string[], from: number): string | null {
  for (let at = from - 1; at >= Math.max(0, from - SECTION_LINES); at--)
    if (/^[\p{L}_$]/u.test(lines[at]!)) return lines[at]!.slice(0, SECTION_LENGTH).trimEnd();
  return null;
}

function hunkOf(changed: readonly Run[], a: readonly string[], b: readonly string[], context: number): Hunk {
  const [first, last] = [changed[0]!, changed.at(-1)!];
  const lead = Math.min(context, first.a[0]);
  const [from, to] = [first.a[0] - lead, Math.min(a.length, last.a[1] + context)];
  const newFrom = first.b[0] - lead;
  const newLines = last.b[1] - newFrom + (to - last.a[1]);
  const lines: string[] = [];
  const put = (sign: string, text: string): void => {
    lines.push(sign + text.replace(/\n$/, ""));
    if (!text.endsWith("\n")) lines.push(NO_NEWLINE);
  };
  let at = from;
  for (const run of changed) {
    // With `ignoreWhitespace` an equal line is shown as in `b`.
    for (let n = run.a[0] - at; n > 0; n--) put(" ", b[run.b[0] - n]!);
    for (let n = run.a[0]; n < run.a[1]; n++) put("-", a[n]!);
    for (let n = run.b[0]; n < run.b[1]; n++) put("+", b[n]!);
    at = run.a[1];
  }
  for (let n = 0; at + n < to; n++) put(" ", b[last.b[1] + n]!);
  const startOf = (start: number, length: number): number => (length === 0 ? start : start + 1);
  return {
    old_start: startOf(from, to - from),
    old_lines: to - from,
    new_start: startOf(newFrom, newLines),
    new_lines: newLines,
    section: sectionAbove(a, from),
    lines,
  };
}
