/** Finds the words that differ between a line and its replacement. */

export interface Piece {
  text: string;
  isMarked: boolean;
}

/** In lines with more words everything between the first and the last difference is marked. */
const MOST_WORDS = 300;
const WORD = /[\p{L}\p{N}_]+|\s+|[^\p{L}\p{N}_\s]/gu;

/** Splits both lines into pieces; null if too few words are equal for useful marks. */
export function markWords(before: string, after: string): { before: Piece[]; after: Piece[] } | null {
  const [a, b] = [before.match(WORD) ?? [], after.match(WORD) ?? []];
  const equal = a.length > MOST_WORDS || b.length > MOST_WORDS ? endsOf(a, b) : common(a, b);
  const kept = equal.reduce((sum, [i]) => sum + a[i]!.trim().length, 0);
  if (kept * 4 < Math.min(before.trim().length, after.trim().length)) return null;
  return { before: piecesOf(a, new Set(equal.map(([i]) => i))), after: piecesOf(b, new Set(equal.map(([, i]) => i))) };
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

function endsOf(a: readonly string[], b: readonly string[]): [number, number][] {
  const most = Math.min(a.length, b.length);
  let [head, tail] = [0, 0];
  while (head < most && a[head] === b[head]) head++;
  while (tail < most - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const start = Array.from({ length: head }, (_, i): [number, number] => [i, i]);
  return [
    ...start,
    ...Array.from({ length: tail }, (_, i): [number, number] => [a.length - tail + i, b.length - tail + i]),
  ];
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
