import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { CairnError } from "../../errors.ts";
import type { SavePointId } from "../../ids.ts";
import { controlPaths } from "../place/control-layout.ts";
import type { Point } from "../points/point-files.ts";
import { temporaryFolder } from "../store/testing-store.ts";
import type { Workspace } from "../open/workspace.ts";
import { planCleanup } from "./cleanup-plan.ts";

const ID = (digit: string): SavePointId => digit.repeat(32) as SavePointId;

/** A point that is saved one day after the other; only undo points need no store to count their bytes. */
function point(digit: string, sequence: number, pin = false): Point {
  const created_at = new Date(Date.UTC(2026, 0, sequence)).toISOString();
  const descriptor = { save_point_id: ID(digit), sequence, created_at, undo: false, complete: true };
  const facts = { sequence, checksum: digit.repeat(64), sealed: false, tags: [] };
  return { ...facts, descriptor, pin: pin ? {} : null } as unknown as Point;
}

function workspaceOf(t: TestContext, id: string, points: Point[]): Workspace {
  const control = controlPaths(temporaryFolder(t));
  mkdirSync(control.workspaces);
  return {
    state: () => ({ head: points[0]!.descriptor.save_point_id, operations: [] }),
    points: { latest: () => points[0], list: () => ({ points, damaged: [] }) },
    resolveOwn: (target: string) => points.find(({ descriptor }) => descriptor.save_point_id === target),
    engine: { store: async () => ({ heldBytes: async () => [0, 0] }) },
    found: { control, workspace: { id } },
  } as unknown as Workspace;
}

test("rules keep a pinned point, and the removal of exactly this point is refused", async (t) => {
  const points = [point("a", 3), point("b", 2, true)];
  const workspace = workspaceOf(t, "one", points);
  const { decisions } = await planCleanup(workspace, { rules: { keepLast: 1 } });
  assert.deepEqual(
    decisions.map(({ id, keep, reasons }) => [id, keep, reasons[0]]),
    [
      [ID("a"), true, "head"],
      [ID("b"), true, "pinned"],
    ],
  );
  await assert.rejects(
    planCleanup(workspace, { rules: {}, only: [ID("b")] }),
    (error) => error instanceof CairnError && error.code === "refused" && /it is pinned/.test(error.message),
  );
});

test("the plan of a cleanup has another id in another workspace with the same points", async (t) => {
  const idIn = async (id: string): Promise<string> =>
    (await planCleanup(workspaceOf(t, id, [point("a", 1)]), { rules: { keepLast: 1 } })).id;
  assert.equal(await idIn("one"), await idIn("one"));
  assert.notEqual(await idIn("one"), await idIn("two"));
});
