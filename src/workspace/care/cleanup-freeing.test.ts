import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import type { Freed, freeContent, FreeRequest } from "../store/free-content.ts";
import type { SavePointId } from "../../ids.ts";
import { controlPaths } from "../place/control-layout.ts";
import { freeRemoved } from "../keep/cleanup.ts";
import { isUnfreed, noteUnfreed } from "../keep/unfreed.ts";
import type { Workspace } from "../open/workspace.ts";

const [A, B] = ["a", "b"].map((digit) => digit.repeat(32) as SavePointId) as [SavePointId, SavePointId];
const DONE: Freed = { bytesFreed: 0, postponed: false, left: null, lost: [] };

/** A control directory without workspaces, whose store answers as it is told. */
function place(t: TestContext) {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-unfreed-"));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  const control = controlPaths(root);
  for (const each of [control.temporary, control.workspaces]) fs.mkdirSync(each);
  const asked: Pick<FreeRequest, "pointIds" | "thorough">[] = [];
  const free = async (answer: Partial<Freed>, removed: SavePointId[], thorough: boolean): Promise<boolean> => {
    const told: typeof freeContent = async (_store, { pointIds, thorough: how }) => {
      asked.push({ pointIds, thorough: how });
      return { ...DONE, ...answer };
    };
    const workspace = { found: { control }, engine: { store: () => null } } as unknown as Workspace;
    return (await freeRemoved(workspace, { removed, thorough, waitMs: 0, signal: undefined }, told)).complete;
  };
  return { control, asked, free };
}

test("freeRemoved repeats the removal of postponed snapshots until a busy store has freed their content", async (t) => {
  const { control, asked, free } = place(t);
  assert.equal(await free({ postponed: true }, [A], false), true);
  assert.equal(await free({ postponed: true }, [B], true), false);
  assert.equal(await free({ postponed: true }, [], false), false);
  assert.equal(fs.readdirSync(control.unfreed).length, 2);
  assert.equal(await free({}, [], false), true);
  assert.deepEqual(
    asked.map(({ pointIds, thorough }) => [pointIds.toSorted(), thorough]),
    [
      [[A], false],
      [[A, B], true],
      [[A, B], true],
      [[A, B], true],
    ],
  );
  assert.equal(isUnfreed(control), false);
});

test("freeRemoved is thorough if a note of unfreed content is damaged, and keeps a newer version's note", async (t) => {
  const { control, asked, free } = place(t);
  noteUnfreed(control, { points: [A], thorough: false });
  const [name] = fs.readdirSync(control.unfreed);
  fs.writeFileSync(path.join(control.unfreed, name!), "{");
  const newer = `${"0".repeat(16)}.json`;
  fs.writeFileSync(path.join(control.unfreed, newer), '{"format":"cairn.unfreed","version":2}\n');
  assert.equal(await free({}, [], false), true);
  assert.deepEqual(asked, [{ pointIds: [], thorough: true }]);
  assert.deepEqual(fs.readdirSync(control.unfreed), [newer]);
});
