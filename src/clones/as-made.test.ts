import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { identityOfTree, whyNotAsMade } from "./as-made.ts";

test("a held tree is the tree that was made, and no other folder, file or link at its path", (t) => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-as-made-"));
  t.after(() => fs.rmSync(root, { recursive: true }));
  const place = path.join(root, "tree");
  fs.mkdirSync(place);
  fs.writeFileSync(path.join(place, "file"), "saved");
  const making = { identity: identityOfTree(place), between: [0, Date.now()] as const, last_change: Date.now() };
  const why = (): string | null => whyNotAsMade(place, "reflink", making);
  assert.equal(why(), null);
  fs.renameSync(place, path.join(root, "real"));
  fs.cpSync(path.join(root, "real"), place, { recursive: true });
  assert.match(why()!, /something else is at its path/);
  fs.rmSync(place, { recursive: true });
  fs.symlinkSync("real", place);
  assert.equal(why(), "is not a folder now");
});
