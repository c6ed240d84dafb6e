import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { foldChangelog, withoutDeadLinks } from "./release.ts";

const CHANGELOG = "# Changes\n\n## 0.1.0\n\nThe first.\n\n### Saves\n\n- a\n";

test("unreleased changes are appended to the section of their version if the changelog has one", () => {
  assert.equal(
    foldChangelog(`${CHANGELOG}\n## 0.0.9\n\nOlder.\n`, ["b\n", "c\nover two lines.\n"], "0.1.0"),
    `${CHANGELOG}\n### More\n\n- b\n- c over two lines.\n\n## 0.0.9\n\nOlder.\n`,
  );
  assert.equal(foldChangelog(CHANGELOG, ["b\n"], "0.1.0"), `${CHANGELOG}\n### More\n\n- b\n`);
});

test("unreleased changes become the first section if the changelog has none for their version", () => {
  assert.equal(
    foldChangelog(CHANGELOG, ["b\n"], "0.2.0"),
    CHANGELOG.replace("## 0.1.0", "## 0.2.0\n\n- b\n\n## 0.1.0"),
  );
});

test("a changelog without unreleased changes stays as it is", () => {
  assert.equal(foldChangelog(CHANGELOG, [], "0.2.0"), CHANGELOG);
});

test("a package's pages have no links to files that are not in the package", () => {
  const page = "[a](there.md#x) · [proof](gone.ts)\n![shot](gone.png)\n[`b`](gone/) [c](#here) [d](https://e.f/g)\n";
  const dark = '<source media="(prefers-color-scheme: dark)" srcset="gone-dark.png" />';
  const shown = `a\n\n<picture>\n  ${dark}\n  <img alt="x" src="gone.png" />\n</picture>\n\nb\n`;
  assert.equal(
    withoutDeadLinks(shown, () => false),
    "a\n\nb\n",
  );
  assert.equal(
    withoutDeadLinks(shown, () => true),
    shown,
  );
  assert.equal(
    withoutDeadLinks(page, (file) => file === "there.md"),
    "[a](there.md#x)\n\n`b` [c](#here) [d](https://e.f/g)\n",
  );
  const root = path.resolve(import.meta.dirname, "..");
  const isPacked = (file: string): boolean => !/\.(?:svg|png|ts)$|^(?:test|tools)\/|CONTRIBUTING/.test(file);
  for (const name of [
    "README.md",
    ...readdirSync(path.join(root, "docs"), { recursive: true, encoding: "utf8" })
      .filter((each) => each.endsWith(".md"))
      .map((each) => `docs/${each}`),
  ]) {
    const packed = withoutDeadLinks(readFileSync(path.join(root, name), "utf8"), isPacked);
    assert.doesNotMatch(packed, /\]\([^)\s:]+\.(?:svg|png|ts)\)|<picture>/, name);
  }
});
