import assert from "node:assert/strict";
import { test } from "node:test";
import { userInfo } from "node:os";
import { absolutePath, groupName, homeDirectories, homeDirectory, parseNames, userName } from "./users.ts";

test("a known number has its name", () => {
  assert.equal(userName(0), "root");
  assert.notEqual(groupName(0), "");
  assert.ok(homeDirectories().includes("/root"));
});

test("an unknown number has no name", () => {
  assert.equal(userName(4_000_000_000), "");
});

test("odd lines are skipped and the first of two counts", () => {
  const names = parseNames("# x:y:1:\na:x:5:\nb:x:5:\na:x:6:\nbad\n+::::::\nc:x:-1:\n");
  assert.deepEqual(
    [...names],
    [
      [5, "a"],
      [6, "a"],
    ],
  );
});

test("a relative HOME counts as unset", (t) => {
  const before = process.env["HOME"];
  t.after(() => {
    if (before === undefined) delete process.env["HOME"];
    else process.env["HOME"] = before;
  });
  for (const home of ["", "relative", "./relative"]) {
    process.env["HOME"] = home;
    assert.equal(homeDirectory(), userInfo().homedir, home);
    assert.equal(homeDirectory({ HOME: "/asked" }), "/asked");
    assert.equal(absolutePath(process.env, "HOME"), null);
  }
});
