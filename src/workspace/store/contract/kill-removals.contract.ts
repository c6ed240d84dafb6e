import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { killAt, passesOf } from "../../../../test/crash/rounds.ts";
import { type EngineClauses, removeFolder } from "../../../../test/fixtures/engine-clauses.ts";
import { subvolumesOf } from "../../../../test/fixtures/held-place.ts";
import { makeFirst } from "../../../../test/fixtures/two-states.ts";
import { cairnLibrary, resticCheck } from "../../../../test/fixtures/work.ts";
import { anyPass, killClause, KillScene, passesToKill } from "./kill-scene.contract.ts";

/**
 * Kills cleanups and releases. Their code is the same for all engines, except for trees. The store's part, without
 * trees, is killed step by step in test/crash/cleanup.flow.test.ts.
 */
export function killRemovalClauses(clauses: EngineClauses): void {
  const { holds, thorough, subject } = clauses;
  const title = "killed";

  killClause(clauses, "a cleanup killed at any step removes no point or exactly the planned points", async (scene) => {
    const { client, folder } = scene.place;
    for (let i = 0; i < 4; i++) await scene.save();
    const names = passesOf(["cleanup", "--keep-last", "3", "-C", folder]);
    assert.ok(names.includes("cleanup.trees-removed"), names.join(" "));
    const outcomes = new Set<number>();
    // Do not repeat the store's own steps for engines with trees.
    const own =
      thorough && holds
        ? /^(?!remove\.|free\.|sweep\.)/
        : /^held-tree\.|^cleanup\.(?:checked|trees-removed)$|^points\.moved-away$/;
    for (const pass of passesToKill(names, { thorough: false, own })) {
      for (let i = 0; i < 3; i++) await scene.save();
      const before = await scene.ids(title);
      // A point that is not sealed, and that the cleanup does not remove.
      const young = await scene.save();
      const kills = [killAt(["cleanup", "--keep-last", "4", "-C", folder], pass)];
      if (pass % 2 === 0) kills.push(killAt([holds ? "seal" : "save", "-C", folder], anyPass(holds ? 20 : 6)));
      const where = `cleanup killed at ${kills.join(", then ")}`;
      // The next call finishes the cleanup, if there is something to finish.
      const last = await scene.save();
      const now = await scene.ids(where);
      const listed = now.filter((id) => before.includes(id));
      assert.deepEqual(listed, listed.length === before.length ? before : before.slice(-3), where);
      const since = now.slice(listed.length);
      if (holds) assert.deepEqual(since, [young, last], where);
      // The killed save may have made its point.
      else if (since.length === 3) scene.same(since[1]!, young);
      assert.deepEqual([since[0], since.at(-1)], [young, last], where);
      outcomes.add(listed.length);
      await scene.check(where, kills.length === 1 ? 1 : 0);
      if (pass % 8 === 0) resticCheck(client, where);
    }
    assert.ok(outcomes.size >= 2, "both outcomes were seen");
    resticCheck(client, title);
  });

  killClause(
    clauses,
    "a release with --delete-points killed at any step leaves all points or none",
    async ({ place: { volume, client: begun, folder: first } }) => {
      await begun.release({ deletePoints: true });
      removeFolder(volume, first);
      const library = await cairnLibrary();
      let folders = 0;
      const fresh = async (): Promise<KillScene> => {
        const place = await clauses.workspace(volume, path.join(volume.root, `ws-${folders++}`), makeFirst);
        const scene = new KillScene(place);
        await scene.save();
        await place.client.seal();
        for (let i = 0; i < 2; i++) await scene.save();
        return scene;
      };
      const gone = ({ place: { folder, client } }: KillScene, context: string): void => {
        assert.equal(fs.existsSync(client.controlDirectory), false, context);
        // If the kernel's locks are not trusted, a lock is a file with a number.
        const left = fs
          .readdirSync(path.dirname(client.controlDirectory))
          .map((name) => name.replace(/\.owner-\d+$/, ""));
        assert.deepEqual(left, left.length === 0 ? [] : ["adopt.lock"], context);
        if (volume.kind !== "btrfs") return;
        const own = subject.engine === "btrfs-snapshot" ? [path.basename(folder)] : [];
        assert.deepEqual(subvolumesOf(volume.root), own, context);
      };
      const listed = await fresh();
      const names = passesOf(["release", listed.place.folder, "--delete-points"]);
      gone(listed, "released");
      removeFolder(volume, listed.place.folder);
      const outcomes = new Set<number>();
      for (const pass of passesToKill(names, { thorough, own: /^(?:release|held-tree)\./ })) {
        const scene = await fresh();
        const before = await scene.ids(title);
        const killed = killAt(["release", scene.place.folder, "--delete-points"], pass);
        const where = `release killed at ${killed}`;
        scene.place.client = await library.openOrInit(scene.place.folder, { engineType: subject.engine });
        const now = await scene.ids(where);
        assert.deepEqual(now, now.length === 0 ? [] : before, where);
        outcomes.add(now.length);
        if (now.length > 0) await scene.check(where, 1);
        await scene.place.client.release({ deletePoints: true });
        gone(scene, where);
        removeFolder(volume, scene.place.folder);
      }
      assert.equal(outcomes.size, 2, "both outcomes were seen");
    },
  );
}
