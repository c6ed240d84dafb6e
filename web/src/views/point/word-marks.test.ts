import assert from "node:assert/strict";
import { test } from "node:test";
import { markCharacters, markWords, type Piece, shortened } from "./word-marks.ts";

const shown = (pieces: readonly Piece[]): string =>
  pieces.map(({ text, isMarked }) => (isMarked ? `[${text}]` : text)).join("");

function marks(before: string, after: string): [string, string] | null {
  const found = markWords(before, after);
  return found === null ? null : [shown(found.before), shown(found.after)];
}

test("markWords marks the differing words on both sides", () => {
  assert.deepEqual(marks("return sum * 1.19;", "return sum * TAX;"), ["return sum * [1.19];", "return sum * [TAX];"]);
  assert.deepEqual(marks("a b c", "a c"), ["a [b ]c", "a c"]);
  assert.deepEqual(marks("größe = 1", "größe = 22"), ["größe = [1]", "größe = [22]"]);
});

test("markWords returns null for lines with little in common", () => {
  assert.equal(marks("const total = sum(items);", "}"), null);
  assert.equal(marks("alpha beta gamma delta", "one two three four"), null);
});

test("markWords marks a very long line from its first to its last difference", () => {
  const line = (word: string): string => `${"x ".repeat(400)}${word} ${"y ".repeat(400)}`;
  const found = marks(line("one"), line("two"))!;
  assert.equal(found[0], line("[one]"));
  assert.equal(found[1], line("[two]"));
});

test("markWords marks each of several differences in a very long line, also behind inserted words", () => {
  const words = Array.from({ length: 5000 }, (_, i) => `w${i}`);
  const [before, after] = [
    words.join(" "),
    words.with(1000, "new one").toSpliced(3000, 1).with(4000, "last").join(" "),
  ];
  const [old, now] = marks(before, after)!;
  assert.deepEqual(old.match(/\[[^\]]*\]/g), ["[w1000]", "[w3000 ]", "[w4001]"]);
  assert.deepEqual(now.match(/\[[^\]]*\]/g), ["[new one]", "[last]"]);
});

test("shortened keeps the marks of a long line with some text beside them, and says how much it leaves out", () => {
  const line = (word: string): string => `${"x".repeat(9000)}${word}${"z".repeat(500)}`;
  const { before } = markCharacters(line("old"), line("new"));
  assert.equal(
    shown(shortened(before, 4000)),
    ` … 8,880 characters … ${"x".repeat(120)}[old]${"z".repeat(120)} … 380 characters … `,
  );
  assert.deepEqual(shortened([{ text: "short", isMarked: false }], 4000), [{ text: "short", isMarked: false }]);
  const [beginning, note] = shortened([{ text: "y".repeat(5000), isMarked: false }], 4000);
  assert.deepEqual([beginning!.text.length, note!.text], [4000, " … 1,000 characters … "]);
});
