import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { ERROR_TABLE } from "../src/errors.ts";
import { WORK_KINDS } from "../src/formats/records/unfinished.ts";
import { ALL_WORK, errorPage, jsonTables, promisedKeys, unfinishedPage } from "./generate-docs.ts";

test("the page of errors has one section per code, and lists each code under its exit status", () => {
  const page = errorPage(ERROR_TABLE);
  const sections = [...page.matchAll(/^### (\w+)$/gm)].map((match) => match[1]);
  assert.deepEqual(sections, Object.keys(ERROR_TABLE));
  for (const [code, row] of Object.entries(ERROR_TABLE)) {
    assert.match(page, new RegExp(`^\\| ${row.exit} \\|[^|]*\\|.*\\[${code}\\]\\(#${code}\\)`, "m"), code);
  }
});

test("promisedKeys reads the keys of docs/json.md with their command or object", () => {
  const page = [
    "| `key` | of no table |",
    "<!-- made by `npm run docs` -->",
    "| `seal` | `sealed`: number; `path?`: string |",
    "| `diff` | [DiffResult](#diffresult) |",
    "### DiffResult",
    "| key | type | meaning |",
    "| `from` | string | an id |",
    "| `to?` | string | `head`: an id |",
    "<!-- end -->",
  ];
  assert.deepEqual(
    [...promisedKeys(page.join("\n"))],
    ["seal: sealed", "seal: path", "DiffResult: from", "DiffResult: to"],
  );
});

test("docs/json.md promises exactly the keys that the commands and their verbs have", () => {
  const page = readFileSync(new URL("../docs/json.md", import.meta.url), "utf8");
  const made = `<!-- made by \`npm run docs\` -->\n${jsonTables()}<!-- end -->`;
  assert.ok(promisedKeys(page).size > 500);
  assert.deepEqual(promisedKeys(made), promisedKeys(page));
});

test("the page of unfinished work has every kind that can be begun, each with one commit point", () => {
  const kinds = ALL_WORK.map(({ kind }) => kind);
  assert.equal(new Set(kinds).size, kinds.length);
  assert.deepEqual(
    WORK_KINDS.filter((kind) => !kinds.includes(kind)),
    [],
  );
  const page = unfinishedPage(ALL_WORK);
  for (const { kind, where, steps, before, after } of ALL_WORK) {
    assert.equal(steps.filter((step) => step.startsWith("● ")).length, 1, kind);
    // Somebody has to end the work: before the commit point, behind it, or both.
    assert.ok(before !== null || after !== null, kind);
    assert.ok(page.includes(`| [${kind}](#${kind}) | ${where} | `), kind);
    assert.match(page, new RegExp(`^### ${kind}$`, "m"));
  }
});
