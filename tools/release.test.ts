import assert from "node:assert/strict";
import { test } from "node:test";
import { foldChangelog } from "./release.ts";

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
