import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { ERROR_TABLE } from "../src/errors.ts";
import { errorPage, jsonTables, promisedKeys } from "./generate-docs.ts";

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
