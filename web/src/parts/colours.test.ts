import assert from "node:assert/strict";
import { test } from "node:test";
import { colourFor } from "./colours.ts";

test("a text is split into lines of pieces with their kinds, and keeps each character", async () => {
  const colour = (await colourFor("src/a.ts"))!;
  const text = "const a = \"<b>&amp;</b>\";\n/* one\n   two */ return 'x';\n\n";
  const lines = colour(text);
  assert.equal(lines.map((line) => line.map((piece) => piece.text).join("")).join("\n"), text);
  assert.deepEqual(lines[0]![0], { text: "const", kind: "keyword" });
  assert.ok(lines[0]!.some((piece) => piece.kind === "string" && piece.text.includes("<b>&amp;</b>")));
  assert.deepEqual(
    [lines[1], lines[2]!.at(0)],
    [[{ text: "/* one", kind: "comment" }], { text: "   two */", kind: "comment" }],
  );
  assert.equal(await colourFor("a.unknown"), null);
  assert.equal(await colourFor("Makefile"), null);
});

test("a long text stays without colours", async () => {
  const colour = (await colourFor("a.py"))!;
  assert.deepEqual(colour(`${"x".repeat(300_000)}\ny`)[1], [{ text: "y", kind: null }]);
});
