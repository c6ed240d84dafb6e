import { useSignal } from "@preact/signals";
import type { DiffTextResult } from "cairnstate/client";
import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import { useColour } from "../../parts/coloured.tsx";
import type { Colour, Coloured } from "../../parts/colours.ts";
import { visible } from "../../parts/name.tsx";
import { count } from "../../parts/numbers.ts";
import { markCharacters, markWords, type Piece, shortened } from "./word-marks.ts";

/** Number of lines that are rendered at first, and that each "more" adds. */
const SHOWN = 600;
/** Longer lines are shortened to their differences. */
const LINE = 4_000;

interface Line {
  /** The line by its syntax, once the language is loaded. */
  colours?: readonly Coloured[];
  sign: "+" | "-" | " " | "\\" | "@";
  pieces: readonly Piece[];
  /** All of a line of which `pieces` has a part only. */
  whole?: readonly Piece[];
  before: number | null;
  after: number | null;
}

interface Pair {
  before: Line | null;
  after: Line | null;
}

/** A text diff, unified or side by side, with changed words marked. */
export function TextDiff({
  path,
  diff,
  isSplit,
  isWrapped,
}: {
  path: string;
  diff: DiffTextResult;
  isSplit: boolean;
  isWrapped: boolean;
}): JSX.Element {
  const shown = useSignal(SHOWN);
  const colour = useColour(path);
  const lines = useMemo(() => diff.hunks.flatMap((hunk) => linesOf(hunk, colour)), [diff, colour]);
  const rows: (Line | Pair)[] = isSplit ? pairsOf(lines) : lines;
  const left = rows.length - shown.value;
  return (
    <div
      class="text-diff"
      data-split={isSplit}
      data-wrapped={isWrapped}
      tabIndex={0}
      role="region"
      aria-label="Differences"
    >
      <table>
        <tbody>
          {rows
            .slice(0, shown.value)
            .map((row, i) =>
              "sign" in row ? <Unified key={i} line={row} isSplit={isSplit} /> : <Split key={i} pair={row} />,
            )}
        </tbody>
      </table>
      {left > 0 && (
        <button type="button" onClick={() => (shown.value += SHOWN * 4)}>
          Show more: {count(left)} lines are left
        </button>
      )}
    </div>
  );
}

function linesOf(hunk: DiffTextResult["hunks"][number], colour: Colour | null): Line[] {
  const { old_start, old_lines, new_start, new_lines, section } = hunk;
  const head = `@@ −${old_start},${old_lines} +${new_start},${new_lines} @@ ${section ?? ""}`;
  const made: Line[] = [{ sign: "@", pieces: [plain(head)], before: null, after: null }];
  let [before, after] = [old_start, new_start];
  for (const text of hunk.lines) {
    const sign = text[0] as Line["sign"];
    const pieces = [plain(text.slice(1))];
    made.push({
      sign,
      pieces,
      before: sign === "-" || sign === " " ? before++ : null,
      after: sign === "+" || sign === " " ? after++ : null,
    });
  }
  if (colour !== null) for (const sign of ["-", "+"] as const) colourSide(made, sign, colour);
  return marked(made);
}

/** Colours the lines of one side of a hunk, which are a text without gaps. */
function colourSide(lines: readonly Line[], sign: "+" | "-", colour: Colour): void {
  const side = lines.filter((line) => line.sign === sign || line.sign === " ");
  const coloured = colour(side.map(({ pieces }) => pieces[0]!.text).join("\n"));
  for (const [i, line] of side.entries()) line.colours = coloured[i]!;
}

function plain(text: string): Piece {
  return { text, isMarked: false };
}

/**
 * Marks the changed words of lines that replace each other: pairs the removed and the added lines of a run in order.
 */
function marked(lines: Line[]): Line[] {
  for (let at = 0; at < lines.length;) {
    if (lines[at]!.sign !== "-") {
      at++;
      continue;
    }
    const { removed, added, end } = changeAt(lines, at);
    for (const [i, line] of removed.entries()) {
      const other = added[i];
      if (other === undefined) continue;
      const [before, after] = [line.pieces[0]!.text, other.pieces[0]!.text];
      const isLong = before.length > LINE && after.length > LINE;
      const found = markWords(before, after) ?? (isLong ? markCharacters(before, after) : null);
      if (found === null) continue;
      line.pieces = found.before;
      other.pieces = found.after;
    }
    at = end;
  }
  for (const line of lines) {
    const pieces = shortened(line.pieces, LINE);
    if (pieces.some(({ isCut }) => isCut)) line.whole = line.pieces;
    line.pieces = pieces;
  }
  return lines;
}

function runOf(lines: readonly Line[], at: number, sign: string): Line[] {
  let end = at;
  while (lines[end]?.sign === sign) end++;
  return lines.slice(at, end);
}

/** Returns the removed lines from `at`, the added lines that replace them, and the index behind both. */
function changeAt(lines: readonly Line[], at: number): { removed: Line[]; added: Line[]; end: number } {
  const removed = runOf(lines, at, "-");
  let end = at + removed.length;
  // Skips the note that the last removed line has no line end.
  if (lines[end]?.sign === "\\" && lines[end + 1]?.sign === "+") end++;
  const added = runOf(lines, end, "+");
  return { removed, added, end: end + added.length };
}

function pairsOf(lines: readonly Line[]): (Line | Pair)[] {
  const rows: (Line | Pair)[] = [];
  for (let at = 0; at < lines.length;) {
    const line = lines[at]!;
    if (line.sign === "@" || line.sign === "\\") {
      if (line.sign === "@") rows.push(line);
      at++;
    } else if (line.sign === " ") {
      rows.push({ before: line, after: line });
      at++;
    } else {
      const { removed, added, end } = changeAt(lines, at);
      for (let i = 0; i < Math.max(removed.length, added.length); i++)
        rows.push({ before: removed[i] ?? null, after: added[i] ?? null });
      at = end;
    }
  }
  return rows;
}

function Unified({ line, isSplit }: { line: Line; isSplit: boolean }): JSX.Element {
  if (line.sign === "@")
    return (
      <tr class="hunk">
        <td colSpan={isSplit ? 4 : 3}>{visible(line.pieces[0]!.text)}</td>
      </tr>
    );
  return (
    <tr data-sign={line.sign}>
      <td class="line-number">{line.before}</td>
      <td class="line-number">{line.after}</td>
      <td class="line">
        <Content line={line} />
      </td>
    </tr>
  );
}

function Split({ pair: { before, after } }: { pair: Pair }): JSX.Element {
  return (
    <tr>
      <Half line={before} number={before?.before ?? null} />
      <Half line={after} number={after?.after ?? null} />
    </tr>
  );
}

function Half({ line, number }: { line: Line | null; number: number | null }): JSX.Element {
  const sign = line?.sign ?? "none";
  return (
    <>
      <td class="line-number" data-sign={sign}>
        {number}
      </td>
      <td class="line" data-sign={sign}>
        {line !== null && <Content line={line} />}
      </td>
    </>
  );
}

const SPOKEN: Readonly<Record<string, string>> = { "+": "added: ", "-": "removed: " };

function Content({ line }: { line: Line }): JSX.Element {
  const isWhole = useSignal(false);
  const pieces = (isWhole.value ? line.whole : undefined) ?? line.pieces;
  return (
    <bdi dir="ltr">
      <span class="line-sign" aria-hidden="true">
        {line.sign === "\\" ? "" : line.sign}
      </span>
      {SPOKEN[line.sign] !== undefined && <span class="spoken">{SPOKEN[line.sign]}</span>}
      {coloured(pieces, line.whole === undefined ? line.colours : undefined).map(({ isMarked, isCut, parts }, i) => {
        const shown = parts.map(({ text, kind }, j) =>
          kind === null ? (
            visible(text)
          ) : (
            <span key={j} class={`code-${kind}`}>
              {visible(text)}
            </span>
          ),
        );
        if (isMarked) return <mark key={i}>{shown}</mark>;
        return (
          <span key={i} {...(isCut === true ? { class: "line-cut" } : {})}>
            {shown}
          </span>
        );
      })}
      {line.whole !== undefined && !isWhole.value && (
        <button type="button" class="line-whole" onClick={() => (isWhole.value = true)}>
          Show whole line
        </button>
      )}
    </bdi>
  );
}

/** Splits each piece of a line where a colour begins or ends. No colours: each piece has one part. */
function coloured(
  pieces: readonly Piece[],
  colours: readonly Coloured[] = [],
): (Piece & { parts: readonly Coloured[] })[] {
  let [at, used] = [0, 0];
  return pieces.map((piece) => {
    if (colours.length === 0) return { ...piece, parts: [{ text: piece.text, kind: null }] };
    const parts: Coloured[] = [];
    for (let from = 0; from < piece.text.length;) {
      const { text, kind } = colours[at] ?? { text: piece.text.slice(from), kind: null };
      const length = Math.min(piece.text.length - from, text.length - used);
      parts.push({ text: piece.text.slice(from, from + length), kind });
      from += length;
      used += length;
      if (used === text.length) [at, used] = [at + 1, 0];
    }
    return { ...piece, parts };
  });
}
