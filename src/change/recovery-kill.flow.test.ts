import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import { newSavePointId } from "../ids.ts";
import { readState, writeState } from "../workspace/place/control-directory.ts";
import { controlPaths, workspacePaths } from "../workspace/place/control-layout.ts";
import { Points } from "../workspace/points/points.ts";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

const ENTRY = fileURLToPath(new URL("../cli/program/entry.ts", import.meta.url));

/** A signal that is aborted from the time on when it was asked so often. */
function abortedAt(asks: number): AbortSignal {
  let asked = 0;
  const { signal } = new AbortController();
  return Object.defineProperty(signal, "aborted", { get: () => ++asked > asks });
}

test("an aborted recovery reports the finished operations, and the next command recovers the others", async (t) => {
  const { client, folder, write } = await testFolder(t, { a: "one" });
  const { save_point_id: id } = await client.save();
  const { head } = await client.history();
  const paths = workspacePaths(controlPaths(client.controlDirectory), client.workspace.name);
  const env = { ...process.env, CAIRN_FAILPOINT: "restore.committed" };
  const told = (): string[] =>
    readState(paths)
      .recovered.slice(-2)
      .map(({ detail }) => detail.slice(0, 13));
  const content = (): string => readFileSync(join(folder, "a"), "utf8");
  const seen: unknown[] = [];
  for (let asks = 0; seen.length < 3; asks++) {
    write("a", `two ${asks}`);
    assert.equal(spawnSync(process.execPath, [ENTRY, "restore", id, "-C", folder], { env }).signal, "SIGKILL");
    // As a save that was killed leaves it.
    const points = new Points(paths);
    points.claim(points.nextSequence(), newSavePointId());
    writeState(paths, { ...readState(paths), recovered: [] });
    await assert.rejects(client.save({ signal: abortedAt(asks) }), hasCode("interrupted"));
    const now = [told().length, content() === "one"];
    if (!seen.some((each) => isDeepStrictEqual(each, now))) seen.push(now);
    await client.save({ skipUnchanged: true });
    assert.deepEqual([told(), content()], [["a save was in", "the restore o"], "one"], `after ${asks} asks`);
  }
  assert.deepEqual(seen, [
    [0, false],
    [1, false],
    [2, true],
  ]);
  assert.equal((await client.history()).head, head);
});
