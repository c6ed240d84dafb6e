import assert from "node:assert/strict";
import { existsSync, globSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";

const ROOT = path.resolve(import.meta.dirname, "..");
const PAGES = globSync(["*.md", "docs/**/*.md"], { cwd: ROOT });

test("every file that the docs name or link to is there", () => {
  const missing: string[] = [];
  for (const page of PAGES) {
    const text = readFileSync(path.join(ROOT, page), "utf8");
    for (const [, named = ""] of text.matchAll(/`((?:src|test|tools|docs)\/[\w./-]+)`/g)) {
      if (!existsSync(path.join(ROOT, named))) missing.push(`${page}: ${named}`);
    }
    for (const [, link = ""] of text.matchAll(/\]\(([^)#:\s]+)(?:#[^)]*)?\)/g)) {
      if (!existsSync(path.resolve(ROOT, path.dirname(page), link))) missing.push(`${page}: ${link}`);
    }
  }
  assert.deepEqual(missing, []);
});

test("no page names a line number, which would be wrong by tomorrow", () => {
  for (const page of PAGES) assert.doesNotMatch(readFileSync(path.join(ROOT, page), "utf8"), /\.ts:\d+/, page);
});
