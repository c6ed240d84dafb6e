import assert from "node:assert/strict";
import { test } from "node:test";
import { ERROR_TABLE, type ErrorCode } from "../../src/errors.ts";
import { HINT_CASES, NOT_WALKED } from "./cases.ts";
import { commandIn, walk } from "./walk.ts";

test("every error code has a case, or a reason why no command brings it about", () => {
  const told = new Set<ErrorCode>([...HINT_CASES, ...NOT_WALKED].map(({ code }) => code));
  assert.deepEqual(
    Object.keys(ERROR_TABLE).filter((code) => !told.has(code as ErrorCode)),
    [],
  );
});

test("a hint without the command fails the walk", () => {
  const hint = "see `cairn history`; or `cairn view --close 0123456789abcdef`";
  assert.equal(commandIn(hint, "cairn history"), "cairn history");
  assert.equal(commandIn(hint, "cairn view --close ID"), "cairn view --close 0123456789abcdef");
  assert.equal(commandIn("`cairn why PATH`", "cairn why PATH", { PATH: "b" }), "cairn why b");
  for (const wrong of ["cairn hist", "cairn status", "cairn view --close"])
    assert.throws(() => commandIn("see `cairn history`", wrong), /names no/);
});

for (const one of HINT_CASES)
  test(`${one.code}, ${one.reason}: the hint leads back`, (t) => {
    if (one.isRoots === true && process.geteuid?.() !== 0) return t.skip("only root can bring this about");
    walk(one);
  });
