import assert from "node:assert/strict";
import { test } from "node:test";
import { markWords, type Piece } from "./word-marks.ts";

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
