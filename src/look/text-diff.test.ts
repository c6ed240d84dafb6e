import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { type Hunk, textHunks } from "./text-diff.ts";

function apply(before: string, hunks: readonly Hunk[]): string {
  const lines = before.match(/[^\n]*\n|[^\n]+$/g) ?? [];
  const made: string[] = [];
  let at = 0;
  for (const hunk of hunks) {
    const start = hunk.old_lines === 0 ? hunk.old_start : hunk.old_start - 1;
    made.push(...lines.slice(at, start));
    at = start;
    for (const [i, line] of hunk.lines.entries()) {
      if (line.startsWith("\\")) continue;
      const text = line.slice(1) + (hunk.lines[i + 1]?.startsWith("\\") === true ? "" : "\n");
      if (!line.startsWith("+")) assert.equal(lines[at++], text);
      if (!line.startsWith("-")) made.push(text);
    }
    assert.equal(at, start + hunk.old_lines);
  }
  return [...made, ...lines.slice(at)].join("");
}

const texts = fc
  .array(fc.constantFrom("a", "b", "c", "d", "", "  a"), { maxLength: 40 })
  .chain((lines) => fc.constantFrom(lines.join("\n"), lines.map((each) => `${each}\n`).join("")));

test("textHunks returns hunks that turn the first text into the second", () => {
  fc.assert(
    fc.property(texts, texts, fc.integer({ min: 0, max: 4 }), (before, after, context) => {
      assert.equal(apply(before, textHunks(before, after, { context })!), after);
    }),
  );
});

test("a hunk has the nearest line above it that begins with a letter", () => {
  const body = ["  1", "  2", "  3", "  4", "  5", ""].join("\n");
  const before = `// head\n${body}export function total() {\n${body}}\n`;
  const sections = (after: string): (string | null)[] => textHunks(before, after)!.map(({ section }: Hunk) => section);
  assert.deepEqual(sections(before.replace(/ {2}5\n\}/, "  five\n}")), ["export function total() {"]);
  assert.deepEqual(sections(before.replace("  5", "  five")), [null]);
  assert.equal(textHunks(`${"x".repeat(200)}\n${body}`, `${"x".repeat(200)}\n${body}6\n`)![0]!.section!.length, 80);
});

test("patch accepts the hunks of textHunks, also of files without a newline at the end", (t) => {
  if (spawnSync("patch", ["--version"]).error !== undefined) return t.skip("patch is not installed");
  const folder = mkdtempSync(path.join(tmpdir(), "cairn-text-diff-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = path.join(folder, "f");
  for (const [before, after] of [
    ["a\nb\nc\n", "a\nx\nc"],
    ["", "new\n"],
    ["only", ""],
    ["1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\n5\n6\n7\n8\nnine\nten\n"],
  ] as const) {
    const hunks = textHunks(before, after)!;
    const text = hunks.map((each) =>
      [`@@ -${each.old_start},${each.old_lines} +${each.new_start},${each.new_lines} @@`, ...each.lines, ""].join("\n"),
    );
    writeFileSync(file, before);
    const ran = spawnSync("patch", [file], { input: `--- a\n+++ b\n${text.join("")}`, encoding: "utf8" });
    assert.equal(ran.status, 0, ran.stdout + ran.stderr);
    assert.equal(after === "" ? "" : readFileSync(file, "utf8"), after);
  }
  return undefined;
});

test("textHunks ignores differences in white space with ignoreWhitespace", () => {
  assert.deepEqual(textHunks("a  b\n\tc\n", "a b\nc \n", { ignoreWhitespace: true }), []);
  assert.equal(textHunks("a  b\n", "a b\n")!.length, 1);
});

test("textHunks compares texts of a megabyte, even if every line differs", () => {
  const lines = Array.from(
    { length: 22_000 },
    (_, i) => `line ${i} ${(i * 2_654_435_761) % 1_000_003} some text to fill`,
  );
  const fifth = lines.map((line, i) => (i % 5 === 0 ? `changed ${i}` : line));
  const other = lines.map((line) => line.toUpperCase());
  for (const [changed, added] of [
    [fifth, 4400],
    [other, 22_000],
  ] as const) {
    const hunks = textHunks(lines.join("\n"), changed.join("\n"))!;
    assert.equal(hunks.flatMap((each) => each.lines).filter((line) => line.startsWith("+")).length, added);
  }
});
