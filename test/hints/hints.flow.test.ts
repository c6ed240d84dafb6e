import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { ERROR_TABLE, type ErrorCode } from "../../src/errors.ts";
import { HINT_CASES, NOT_WALKED } from "./cases.ts";
import { ROOT, SCRATCH } from "../fixtures/command.ts";
import { hintSites, isFrom, problemsOf, readExceptions } from "./sites.ts";
import { commandIn, PRINTED, walk } from "./walk.ts";

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

test("a hint in the sources without a case or a reason is found, and a needless exception too", () => {
  const root = path.join(SCRATCH, "sources");
  mkdirSync(path.join(root, "src"), { recursive: true });
  const source = `
    const WAY = "drink it";
    const why = (hint: Hint) => new CairnError("usage", "cold", { hint });
    function f(n: number) {
      if (n > 1) throw new CairnError("busy", \`tea \${n} is hot\`, { hint: advice\`wait \${n} minutes, \${WAY}\` });
      throw why(n === 0 ? "heat it up" : see("history"));
    }`;
  writeFileSync(path.join(root, "src/tea.ts"), source);
  const sites = hintSites(root);
  assert.deepEqual(
    sites.map(({ name }) => name),
    ["tea … is hot ▸ wait … minutes, …drink it", "cold ▸ heat it up", "cold ▸ see …history"],
  );
  const printed = { code: "busy", message: "/a: tea 3 is hot", hint: "wait 3 minutes, drink it" };
  assert.deepEqual(
    sites.map((site) => isFrom(printed, site)),
    [true, false, false],
  );
  assert.equal(isFrom({ ...printed, code: "io" }, sites[0]!), false);
  assert.equal(isFrom({ ...printed, message: "coffee" }, sites[0]!), false);
  const listed = readExceptions("# no kettle\nsrc/tea.ts\n  cold ▸ heat it up\n  cold ▸ ice\n");
  assert.deepEqual(problemsOf(sites, [printed], listed), [
    "no case prints this hint, and no reason says why (src/tea.ts:6): cold ▸ see …history",
    "needless exception: src/tea.ts: cold ▸ ice",
  ]);
});

test("each hint in the sources has a case that prints it, or a reason why none does", (t) => {
  if (PRINTED.length < HINT_CASES.length) return t.skip("not all cases have run");
  const exceptions = readExceptions(readFileSync(path.join(import.meta.dirname, "not-walked.txt"), "utf8"));
  assert.deepEqual(problemsOf(hintSites(ROOT), PRINTED, exceptions), []);
});
