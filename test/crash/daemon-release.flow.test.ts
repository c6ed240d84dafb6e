import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { HistoryResult } from "../../src/contract/looking.ts";
import { TestDaemon } from "../fixtures/daemon.ts";

/** A workspace that is given up, with the daemon killed at each step. */

const KEEPING = ["daemon.releasing", "release.marked", "release.unregistered", "daemon.released", "daemon.forgotten"];
const REMOVING = [
  "daemon.releasing",
  "release.noted",
  "release.control-renamed",
  "release.control-unregistered",
  "release.control-removed",
  "daemon.released",
  "daemon.forgotten",
];

for (const [deletePoints, steps] of [
  [false, KEEPING],
  [true, REMOVING],
] as const)
  test(`the daemon's next start finishes a release ${deletePoints ? "with deletion of points " : ""}that was killed at any step`, async (t) => {
    const daemon = new TestDaemon(t);
    daemon.configure('[backend]\ntype = "plain"\n');
    for (const step of steps) {
      const folder = path.join(daemon.folder, `${step}-${String(deletePoints)}`);
      fs.mkdirSync(folder);
      fs.writeFileSync(path.join(folder, "a"), "one");
      await daemon.start({ CAIRN_FAILPOINT: step });
      await daemon.call("register", { path: folder });
      await daemon.call("save", { workspace: folder });
      await assert.rejects(daemon.call("release", { workspace: folder, options: { deletePoints } }), step);
      await daemon.ended();
      await daemon.start();
      assert.deepEqual((await daemon.reconciled()).workspaces, [], step);
      if (step !== "daemon.forgotten") assert.match(daemon.log, /was released before this start/, step);
      await assert.rejects(daemon.call("save", { workspace: folder }), { code: "not_a_workspace" }, step);
      await daemon.call("register", { path: folder });
      const { save_points: points } = (await daemon.call("history", { workspace: folder })) as HistoryResult;
      assert.equal(points.length, deletePoints ? 0 : 1, step);
      await daemon.call("release", { workspace: folder, options: { deletePoints: true } });
      await daemon.stop();
    }
  });
