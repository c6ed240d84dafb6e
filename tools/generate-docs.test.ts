import assert from "node:assert/strict";
import { test } from "node:test";
import { ERROR_TABLE } from "../src/errors.ts";
import { errorPage } from "./generate-docs.ts";

test("the page has one section per code and lists each code under its exit status", () => {
  const page = errorPage(ERROR_TABLE);
  const sections = [...page.matchAll(/^### (\w+)$/gm)].map((match) => match[1]);
  assert.deepEqual(sections, Object.keys(ERROR_TABLE));
  for (const [code, row] of Object.entries(ERROR_TABLE)) {
    assert.match(page, new RegExp(`^\\| ${row.exit} \\|[^|]*\\|.*\\[${code}\\]\\(#${code}\\)`, "m"), code);
  }
});
