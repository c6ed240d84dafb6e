import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { cairn } from "../../../../test/fixtures/command.ts";
import type { EngineClauses } from "../../../../test/fixtures/engine-clauses.ts";
import { assertFolder, readFolder } from "../../../../test/fixtures/folder-state.ts";
import { assertHeldTidy, treeOf } from "../../../../test/fixtures/held-place.ts";
import { makeFirst, makeSecond } from "../../../../test/fixtures/two-states.ts";
import type { Client, EngineType } from "../../../contract/index.ts";
import type { CairnError } from "../../../errors.ts";
import { walkDigests } from "../testing-walk.ts";

/** Points with a held tree that is sealed later: read-only, and used only while the tree is unchanged. */
export function heldTreeClauses({ clause, holds, atomic }: EngineClauses): void {
  if (!holds) return;
  clause(
    "a held tree equals the saved folder, even after a restore of its point and an edit of the folder",
    async (place) => {
      const { client, folder } = place;
      const first = readFolder(folder);
      await client.save();
      makeSecond(folder);
      await client.save();
      const second = readFolder(folder);
      for (const [sequence, state] of [
        [1, first],
        [2, second],
      ] as const)
        assertFolder(treeOf(client, sequence), state, `the tree of point ${sequence}`);
      if (atomic)
        assert.throws(() => fs.writeFileSync(path.join(treeOf(client, 1), "same/kept.txt"), "no"), { code: "EROFS" });
      // Forks and restores change a copy of the tree.
      await client.seal();
      await client.restore({ target: "head~1", ...(atomic ? { method: "exchange" } : {}) });
      fs.writeFileSync(path.join(folder, "same/kept.txt"), "written after it\n");
      assertFolder(treeOf(client, 1), first, "after a restore of it");
      await client.seal();
      assertHeldTidy(place, "held");
    },
    { fill: makeFirst },
  );

  clause(
    "doctor finds unsealed points healthy, and verify --all seals and verifies them",
    async ({ client, folder }) => {
      await client.save();
      makeSecond(folder);
      await client.save();
      const { healthy, findings } = await client.doctor();
      assert.equal(healthy, true);
      assert.deepEqual(
        findings.map(({ kind, severity }) => [kind, severity]),
        [["held", "info"]],
      );
      await client.doctor({ repair: true });
      assert.deepEqual(
        (await client.history(undefined, 0, { all: true })).save_points.map(({ sealed }) => sealed),
        [false, false],
      );
      const verified = await client.verifyAll();
      assert.deepEqual([verified.checked.points, verified.problems], [2, []]);
      assert.deepEqual(
        (await client.history(undefined, 0, { all: true })).save_points.map(({ sealed, integrity_state }) => [
          sealed,
          integrity_state,
        ]),
        [
          [true, "verified"],
          [true, "verified"],
        ],
      );
    },
    { fill: makeFirst },
  );

  clause(
    "verify and restore report points whose held tree is missing or changed, and other points stay usable",
    async (place) => {
      const { client, folder, volume, engine } = place;
      const states = new Map<string, ReturnType<typeof readFolder>>();
      const save = async (): Promise<string> => {
        fs.appendFileSync(path.join(folder, "same/updated.txt"), "more\n");
        const { save_point_id: id } = await client.save();
        states.set(id, readFolder(folder));
        return id;
      };
      const well = await save();
      const gone = await save();
      const changed = await save();
      const last = await save();
      removeTree(client, { engine, sequence: 2 });
      if (engine !== "btrfs-snapshot") later();
      tamper(client, { engine, sequence: 3 });

      const doctor = await client.doctor();
      assert.equal(doctor.healthy, false);
      await assert.rejects(client.seal(), { code: "damaged" });
      const seal = cairn(["seal", "-C", folder]);
      assert.equal(seal.status, 6, seal.stdout);
      const { save_points, damaged } = await client.history(undefined, 0, { all: true });
      assert.deepEqual(damaged, []);
      assert.deepEqual(
        save_points.map(({ save_point_id: id, sealed }) => [id, sealed]),
        [
          [last, true],
          [changed, false],
          [gone, false],
          [well, true],
        ],
      );
      const { problems } = await client.verifyAll();
      assert.deepEqual(problems.map(({ point }) => point).toSorted(), [gone, changed].toSorted());
      const named = (await client.doctor()).findings.filter(({ severity }) => severity === "damage");
      assert.ok(
        named.some(({ detail }) => detail.includes(gone)),
        JSON.stringify(named),
      );
      const no = path.join(volume.root, "no");
      for (const each of [gone, changed]) {
        assert.equal((await client.verify(each)).problems.length, 1);
        await assert.rejects(client.restore({ target: each }), { code: "damaged" });
        await assert.rejects(client.restore({ target: each, to: no }), { code: "damaged" });
        await assert.rejects(client.fork(each, no), { code: "damaged" });
        assert.equal(fs.existsSync(no), false);
      }
      assert.equal((await client.status()).clean, true);
      assert.equal(JSON.stringify(await client.diff(well, last)).includes("updated.txt"), true);
      await client.restore({ target: well });
      assertFolder(folder, states.get(well)!, "restored");
      await client.undo();
      assertFolder(folder, states.get(last)!, "undone");
      await save();
      // Damaged points can be removed like others.
      await client.runCleanup({ retention: { keepLast: 1 } });
      assert.deepEqual((await client.verifyAll()).problems, []);
      assert.deepEqual(
        (await client.doctor()).findings.filter(({ severity }) => severity === "damage"),
        [],
      );
      assertHeldTidy(place, "cleaned up");
    },
    { fill: makeFirst },
  );

  clause(
    "status fails and names the head if the head's held tree is missing, and the next save succeeds",
    async ({ client, folder, engine }) => {
      await client.save();
      const { save_point_id: head } = await client.save();
      removeTree(client, { engine, sequence: 2 });
      await assert.rejects(
        client.status(),
        (error: CairnError) => error.code === "damaged" && error.message.includes(head),
      );
      const next = await client.save();
      assert.equal(next.parent_id, head);
      assert.equal((await client.status()).clean, true);
      await client.show("head");
      assert.equal(
        (await client.history(undefined, 0, { all: true })).save_points[0]!.payload_root_hash,
        walkDigests(folder).state,
      );
    },
    { fill: makeFirst },
  );

  clause(
    "restore and fork do not use a held tree that was changed after its point was sealed",
    async ({ client, folder, volume, engine }) => {
      const state = readFolder(folder);
      const { save_point_id: id } = await client.save();
      await client.seal();
      if (engine !== "btrfs-snapshot") later();
      tamper(client, { engine, sequence: 1 });
      fs.appendFileSync(path.join(folder, "same/kept.txt"), "edited\n");
      await client.restore({ target: id });
      assertFolder(folder, state, "restored");
      const to = path.join(volume.root, "to");
      await client.restore({ target: id, to });
      assertFolder(to, state, "beside");
      await client.fork(id, path.join(volume.root, "fork"));
      assertFolder(path.join(volume.root, "fork"), state, "forked");
      assert.deepEqual((await client.verifyAll()).problems, []);
    },
    { fill: makeFirst },
  );
}

interface TreeOf {
  engine: EngineType;
  sequence: number;
}

function run(...args: string[]): void {
  execFileSync(args[0]!, args.slice(1), { stdio: ["ignore", "ignore", "pipe"] });
}

function removeTree(client: Client, { engine, sequence }: TreeOf): void {
  const tree = treeOf(client, sequence);
  if (engine === "btrfs-snapshot") run("btrfs", "-q", "subvolume", "delete", tree);
  else run("rm", "-r", tree);
}

/** Writes into a held tree behind Cairn's back, read-only or not. */
function tamper(client: Client, { engine, sequence }: TreeOf): void {
  const tree = treeOf(client, sequence);
  const property = (value: string): void => {
    if (engine === "btrfs-snapshot") run("btrfs", "property", "set", "-ts", tree, "ro", value);
  };
  property("false");
  fs.writeFileSync(path.join(tree, "same/kept.txt"), "NEVER changed\n");
  property("true");
}

/** Waits until a change gets a later time, whatever the clock's resolution. */
function later(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1200);
}
