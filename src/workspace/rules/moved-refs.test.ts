import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { warnOfGitElsewhere } from "./moved-refs.ts";

test("git's own state above the folder, or in a separate directory of a nested one, is named with its place", (t) => {
  const top = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "cairn-elsewhere-")));
  t.after(() => fs.rmSync(top, { recursive: true }));
  const root = path.join(top, "repo/packages/w");
  fs.mkdirSync(path.join(root, "lib/src"), { recursive: true });
  const planned = (name: string, action = "update") => ({ path: Buffer.from(name), action });
  const warned = (...plan: { path: Buffer; action: string }[]): string[] => {
    const all: string[] = [];
    warnOfGitElsewhere(Buffer.from(root), plan, { onWarning: (each) => void all.push(each) });
    return all.map((each) => /outside the folder, in (\S+),/.exec(each)![1]!);
  };
  const file = planned("lib/src/a");
  assert.deepEqual(warned(file), []);
  fs.mkdirSync(path.join(top, "repo/.git"));
  assert.deepEqual(warned(file), [path.join(top, "repo/.git")]);
  fs.writeFileSync(path.join(root, "lib/.git"), "gitdir: ../../../../apart\n");
  assert.deepEqual(warned(file), [path.join(top, "apart"), path.join(top, "repo/.git")]);
  assert.deepEqual(warned(planned("b")), [path.join(top, "repo/.git")], "the plan changes nothing of lib");
  assert.deepEqual(warned(planned("lib/src/a", "keep"), planned("b")), [path.join(top, "repo/.git")]);
  fs.mkdirSync(path.join(root, ".git"));
  assert.deepEqual(warned(file), [path.join(top, "apart")], "the folder is a repository of its own");
  fs.writeFileSync(path.join(root, "lib/.git"), "gitdir: ../.git/modules/lib\n");
  assert.deepEqual(warned(file), [], "the folder has that state itself");
});
