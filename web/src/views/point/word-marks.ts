/** Finds the words that differ between a line and its replacement. */

export interface Piece {
  text: string;
  isMarked: boolean;
  /** True for a note such as ` … 380 characters … `, which replaces text that is left out. */
  isCut?: true;
}

/** For lines with more words the search for the most equal words would be slow: their words are compared in order. */
const MOST_WORDS = 300;
/** In lines with more words everything between the first and the last difference is marked. */
const MOST_COMPARED = 200_000;
/** Number of equal words in a row that end a difference of two long lines. */
const SAME = 4;
const WORD = /[\p{L}\p{N}_]+|\s+|[^\p{L}\p{N}_\s]/gu;

/** Splits both lines into pieces; null if too few words are equal for useful marks. */
export function markWords(before: string, after: string): { before: Piece[]; after: Piece[] } | null {
  const [a, b] = [before.match(WORD) ?? [], after.match(WORD) ?? []];
  const equal = a.length > MOST_WORDS || b.length > MOST_WORDS ? inOrder(a, b) : common(a, b);
  const kept = equal.reduce((sum, [i]) => sum + a[i]!.trim().length, 0);
  if (kept * 4 < Math.min(before.trim().length, after.trim().length)) return null;
  return { before: piecesOf(a, new Set(equal.map(([i]) => i))), after: piecesOf(b, new Set(equal.map(([, i]) => i))) };
}

/** Marks all characters from the first to the last difference. */
export function markCharacters(before: string, after: string): { before: Piece[]; after: Piece[] } {
  const [head, tail] = equalEnds(before, after);
  const pieces = (text: string): Piece[] =>
    [
      { text: text.slice(0, head), isMarked: false },
      { text: text.slice(head, text.length - tail), isMarked: true },
      { text: text.slice(text.length - tail), isMarked: false },
    ].filter((piece) => piece.text !== "");
  return { before: pieces(before), after: pieces(after) };
}

/** Characters that a shortened line shows beside a mark. */
const BESIDE = 120;

/** Shortens a line of more than `most` characters to its marks and some text beside them, or to its start if it has no marks. */
export function shortened(pieces: readonly Piece[], most: number): Piece[] {
  if (pieces.reduce((sum, { text }) => sum + text.length, 0) <= most) return [...pieces];
  const made: Piece[] = [];
  let [room, lacking] = [most, 0];
  const add = (text: string, isMarked: boolean): void => {
    const shown = text.slice(0, room);
    room -= shown.length;
    if (shown !== "" && lacking > 0) note();
    if (shown !== "") made.push({ text: shown, isMarked });
    lacking += text.length - shown.length;
  };
  const note = (): void => {
    made.push({ text: ` … ${lacking.toLocaleString("en")} characters … `, isMarked: false, isCut: true });
    lacking = 0;
  };
  for (const [i, { text, isMarked }] of pieces.entries()) {
    const head = isMarked || pieces.length === 1 ? most : i === 0 ? 0 : BESIDE;
    const tail = Math.min(Math.max(0, text.length - head), i === pieces.length - 1 ? 0 : BESIDE);
    add(text.slice(0, head), isMarked);
    lacking += Math.max(0, text.length - head - tail);
    if (tail > 0) add(text.slice(-tail), isMarked);
  }
  if (lacking > 0) note();
  return made;
}

function piecesOf(words: readonly string[], equal: ReadonlySet<number>): Piece[] {
  const pieces: Piece[] = [];
  for (const [i, text] of words.entries()) {
    const isMarked = !equal.has(i);
    const last = pieces.at(-1);
    if (last?.isMarked === isMarked) last.text += text;
    else pieces.push({ text, isMarked });
  }
  return pieces;
}

/** Returns how many characters or words two lines have in common at their start, and then at their end. */
function equalEnds(a: ArrayLike<string>, b: ArrayLike<string>): [head: number, tail: number] {
  const most = Math.min(a.length, b.length);
  let [head, tail] = [0, 0];
  while (head < most && a[head] === b[head]) head++;
  while (tail < most - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  return [head, tail];
}

/** Returns index pairs of equal words, in order. Continues behind a difference at the next {@link SAME} words that both lines have once. */
function inOrder(a: readonly string[], b: readonly string[]): [number, number][] {
  const [head, tail] = equalEnds(a, b);
  const pairs = Array.from({ length: head }, (_, i): [number, number] => [i, i]);
  const [endA, endB] = [a.length - tail, b.length - tail];
  const isCompared = endA - head <= MOST_COMPARED && endB - head <= MOST_COMPARED;
  const [toA, toB] = isCompared ? [endA, endB] : [head, head];
  const [inA, inB] = [placesOf(a, head, toA), placesOf(b, head, toB)];
  const place = (at: number): number => (inA.get(keyOf(a, at)) === at ? (inB.get(keyOf(a, at)) ?? -1) : -1);
  for (let [i, j] = [head, head]; i < toA && j < toB;) {
    if (a[i] === b[j]) {
      pairs.push([i++, j++]);
      continue;
    }
    while (i < toA && place(i) < j) i++;
    if (i < toA) j = place(i);
  }
  for (let i = endA; i < a.length; i++) pairs.push([i, endB + i - endA]);
  return pairs;
}

function keyOf(words: readonly string[], at: number): string {
  return words.slice(at, at + SAME).join("\0");
}

/** Maps each sequence of {@link SAME} words that occurs once to its place, others to -1. */
function placesOf(words: readonly string[], from: number, to: number): Map<string, number> {
  const places = new Map<string, number>();
  for (let at = from; at < to; at++) {
    const key = keyOf(words, at);
    places.set(key, places.has(key) ? -1 : at);
  }
  return places;
}

/** Returns the index pairs of the longest common subsequence of words. */
function common(a: readonly string[], b: readonly string[]): [number, number][] {
  const width = b.length + 1;
  const best = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      best[i * width + j] =
        a[i] === b[j]
          ? best[(i + 1) * width + j + 1]! + 1
          : Math.max(best[(i + 1) * width + j]!, best[i * width + j + 1]!);
  const pairs: [number, number][] = [];
  for (let [i, j] = [0, 0]; i < a.length && j < b.length;) {
    if (a[i] === b[j]) pairs.push([i++, j++]);
    else if (best[(i + 1) * width + j]! >= best[i * width + j + 1]!) i++;
    else j++;
  }
  return pairs;
}
