import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { type EngineClauses, removeFolder } from "../../../../test/fixtures/engine-clauses.ts";
import { assertFolder, readFolder } from "../../../../test/fixtures/folder-state.ts";
import { assertHeldTidy, subvolumesOf, treeOf } from "../../../../test/fixtures/held-place.ts";
import { makeFirst } from "../../../../test/fixtures/two-states.ts";
import { cairnLibrary, resticCheck } from "../../../../test/fixtures/work.ts";
import { KEPT_TREES } from "../../../formats/records/policy.ts";

/** Cleanups and releases remove points with everything that belongs to them, and nothing else. */
export function cleanupClauses(clauses: EngineClauses): void {
  const { clause, holds, atomic } = clauses;
  clause(
    "cleanup and release leave no trees and no content of the points that they remove",
    async (place) => {
      const { client, folder, volume, engine } = place;
      const states: ReturnType<typeof readFolder>[] = [];
      for (let i = 0; i < 14; i++) {
        fs.writeFileSync(path.join(folder, "turn"), `turn ${i}\n`);
        await client.save({ message: `turn ${i}` });
        states.push(readFolder(folder));
      }
      const trees = (): number => [...Array(30).keys()].filter((i) => fs.existsSync(treeOf(client, i))).length;
      const ids = async (): Promise<string[]> =>
        (await client.history(undefined, 0, { all: true })).save_points.map(({ save_point_id: id }) => id);
      /** Runs a cleanup and checks that it removes exactly the listed points and keeps the newest `count`. */
      const keep = async (count: number): Promise<void> => {
        const before = await ids();
        const plan = await client.previewCleanup({ retention: { keepLast: count } });
        const { removed } = await client.runCleanup({ retention: { keepLast: count }, plan: plan.plan_id });
        assert.deepEqual(removed.toSorted(), before.slice(count).toSorted());
        assert.deepEqual(await ids(), before.slice(0, count));
      };
      assert.equal(trees(), holds ? 14 : 0, "not sealed, they are all there is");
      // Removed points need no seal.
      await keep(12);
      await client.seal();
      assert.equal(trees(), holds ? KEPT_TREES : 0, "sealed, only the newest stay");
      await client.restore({ target: (await ids()).at(-1)!, to: path.join(volume.root, "to") });
      assertFolder(path.join(volume.root, "to"), states[2]!, "the oldest, from the store alone");
      removeFolder(volume, path.join(volume.root, "to"));
      await keep(3);
      assert.equal(trees(), holds ? 3 : 0);
      assertHeldTidy(place, "cleaned up");
      assert.deepEqual((await client.verifyAll()).problems, []);
      resticCheck(client, "cleaned up");
      await client.save();
      await client.release({ deletePoints: true });
      assert.equal(fs.existsSync(client.controlDirectory), false, engine);
      if (volume.kind === "btrfs")
        assert.deepEqual(
          subvolumesOf(volume.root),
          engine === "btrfs-snapshot" ? ["ws"] : [],
          "only the folder itself",
        );
      assertFolder(folder, states.at(-1)!, "the folder is as it was");
    },
    { fill: makeFirst },
  );

  clause(
    "release removes the points of its workspace, and none of another workspace in the control directory",
    async (place) => {
      const { client, volume } = place;
      await client.save();
      const other = path.join(volume.root, "other");
      await client.fork("head", other);
      const fork = await (await cairnLibrary()).open(other);
      fs.appendFileSync(path.join(other, "big"), "of the fork alone\n");
      await fork.save();
      await fork.save();
      await fork.release({ deletePoints: true });
      removeFolder(volume, other);
      await client.seal();
      assert.deepEqual((await client.verifyAll()).problems, []);
      assert.equal((await client.history(undefined, 0, { all: true })).save_points.length, 1);
      assertHeldTidy(place, "released");
    },
    { fill: makeFirst },
  );

  if (!holds) return;
  clause(
    "seal keeps as many trees of sealed points as the policy says, or all trees if the policy is unreadable",
    async ({ client, folder, volume }) => {
      const turn = path.join(folder, "turn");
      const saveTurn = async (number: number): Promise<void> => {
        fs.writeFileSync(turn, `turn ${number}\n`);
        await client.save();
      };
      /** Numbers of the points that have their tree. */
      const trees = (): number[] => [...Array(30).keys()].filter((i) => fs.existsSync(treeOf(client, i)));
      await client.setPolicy({ keptTrees: KEPT_TREES + 2 });
      for (let i = 1; i <= KEPT_TREES + 4; i++) await saveTurn(i);
      await client.seal();
      assert.deepEqual(
        trees(),
        [...Array(KEPT_TREES + 2).keys()].map((i) => i + 3),
      );
      const oldest = await client.restore({
        target: `head~${KEPT_TREES + 1}`,
        ...(atomic ? { method: "exchange" } : {}),
      });
      assert.deepEqual([oldest.method, fs.readFileSync(turn, "utf8")], [atomic ? "exchange" : "entries", "turn 3\n"]);
      // Each seal of a single point removes more trees than were added.
      await client.setPolicy({ keptTrees: 2 });
      for (let i = 14; trees().length > 2 + 1; i++) {
        await saveTurn(i);
        await client.restore({ target: "head", to: path.join(volume.root, "to") });
        removeFolder(volume, path.join(volume.root, "to"));
        assert.ok(i < 30, `trees of ${trees().join(", ")}`);
      }
      const left = trees();
      const file = path.join(client.controlDirectory, "policy.json");
      const policy = fs.readFileSync(file, "utf8");
      for (const unreadable of ['{"format":"cairn.policy","version":2}', "{"]) {
        fs.writeFileSync(file, unreadable);
        await saveTurn(40);
        const warnings: string[] = [];
        await client.seal({ onWarning: (warning) => warnings.push(warning) });
        assert.match(
          warnings.join("\n"),
          /^the policy cannot be read, so no clone is removed: [^\n]*policy\.json[^\n]*$/u,
        );
        left.push((await client.history(undefined, 0, { all: true })).save_points[0]!.sequence);
        assert.deepEqual(trees(), left);
      }
      fs.writeFileSync(file, policy);
      await client.setPolicy({ keptTrees: 0 });
      await client.seal();
      assert.deepEqual(trees(), []);
      await client.setPolicy({ keptTrees: null });
      await client.restore({ target: "head~1" });
      assert.deepEqual((await client.verifyAll()).problems, []);
    },
    { fill: makeFirst },
  );
}
