import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { startCairn } from "../../../../test/fixtures/command.ts";
import type { EngineClauses } from "../../../../test/fixtures/engine-clauses.ts";
import { assertFolder, type FolderState, readFolder } from "../../../../test/fixtures/folder-state.ts";
import { assertHeldTidy } from "../../../../test/fixtures/held-place.ts";
import { makeFirst } from "../../../../test/fixtures/two-states.ts";
import { resticCheck } from "../../../../test/fixtures/work.ts";
import { read } from "../../../look/read.ts";
import { findWorkspace } from "../../place/find-workspace.ts";
import { verifyAll, verifyPoint } from "../../care/verify.ts";
import { Workspace } from "../../open/workspace.ts";
import { PointStore } from "../point-store.ts";
import { walkDigests } from "../testing-walk.ts";

/** Several processes at once: readers see whole points, and no point is lost. */
export function readerClauses({ clause, holds }: EngineClauses): void {
  clause(
    "processes that save, seal and verify at the same time lose no point",
    async (place) => {
      const { client, folder } = place;
      await client.save();
      const outcomes: string[] = [];
      const run = async (args: readonly string[], times: number): Promise<void> => {
        for (let i = 0; i < times; i++) {
          // A machine that does much else may take longer than the usual wait.
          const done = await startCairn([...args, "-C", folder, "--lock-timeout", "60s"]).ended;
          if (done.status !== 0) outcomes.push(`${args.join(" ")}: ${done.status} ${done.stdout}`);
        }
      };
      await Promise.all([
        run(["save"], 4),
        run(["save"], 4),
        run(["seal"], 4),
        run(["verify", "--all"], 2),
        run(["status"], 3),
      ]);
      assert.deepEqual(outcomes, []);
      await client.seal();
      const { save_points, damaged } = await client.history(undefined, 0, { all: true });
      assert.deepEqual(damaged, []);
      assert.equal(save_points.length, 9);
      const { state } = walkDigests(folder);
      for (const { payload_root_hash: digest } of save_points) assert.equal(digest, state);
      assert.deepEqual((await client.verifyAll()).problems, []);
      assertHeldTidy(place, "at once");
    },
    { fill: makeFirst },
  );

  clause(
    "verify, diff and restore find complete points while other processes save and clean up",
    async (place) => {
      const { client, folder, volume } = place;
      const states = new Map<string, FolderState>();
      for (let i = 0; i < 10; i++) {
        fs.writeFileSync(path.join(folder, `f${i % 3}`), Buffer.alloc(50_000, `${i} `));
        const state = readFolder(folder);
        states.set((await client.save()).save_point_id, state);
      }
      const kept = [...states.keys()].slice(-3);
      for (const id of kept) await client.pin(id);
      let busy = true;
      const working = (async () => {
        for (const keep of [7, 5, 3]) {
          for (const args of [["save"], ["cleanup", "--keep-last", `${keep}`]]) {
            // A machine that does much else may take longer than the usual wait.
            const done = await startCairn([...args, "-C", folder, "--lock-timeout", "60s"]).ended;
            assert.equal(done.status, 0, done.stdout + done.stderr);
          }
        }
      })().finally(() => (busy = false));
      const reading = (async () => {
        for (let round = 0; busy || round < 2; round++) {
          const id = kept[round % kept.length]!;
          assert.deepEqual((await client.verify(id)).problems, []);
          await client.diff(id, kept[0]!);
          assert.deepEqual((await client.history()).damaged, []);
          assert.equal((await client.status()).clean, true);
          const to = path.join(volume.root, "read");
          assert.deepEqual((await client.restore({ target: id, to })).left_out, []);
          assertFolder(to, states.get(id)!, `round ${round}`);
          fs.rmSync(to, { recursive: true });
        }
      })();
      await Promise.all([working, reading]);
      const left = (await client.history(undefined, 0, { all: true })).save_points.map(({ save_point_id: id }) => id);
      assert.deepEqual(left.slice(-3), kept.toReversed());
      assert.deepEqual((await client.verifyAll()).problems, []);
      assertHeldTidy(place, "cleaned up while it was read");
      resticCheck(client, "after the cleanups");
    },
    { fill: makeFirst },
  );

  clause(
    "a view keeps its point's content while the folder changes and a cleanup removes other points",
    async (place) => {
      const { client, folder } = place;
      const { save_point_id: id } = await client.save();
      const contents = readFolder(folder);
      const view = await client.view(id);
      const isContent = ([name, facts]: [string, string]): boolean => name !== "" && facts.startsWith("file");
      const shownOf = (state: FolderState): string[] =>
        [...state].filter(isContent).map(([name, facts]) => `${name}: ${facts.split(", mtime")[0]}`);
      assert.deepEqual(shownOf(readFolder(view.path)), shownOf(contents));
      for (const [name, facts] of readFolder(view.path))
        if (!facts.startsWith("link"))
          assert.match(facts, /mode [0-7]*[0145][0145][0145],/, `${name} may be written to`);
      fs.rmSync(path.join(folder, "goes"), { recursive: true });
      fs.writeFileSync(path.join(folder, "same/kept.txt"), "edited\n");
      for (let i = 0; i < 3; i++) await client.save();
      const plan = await client.previewCleanup({ retention: { keepLast: 1 } });
      assert.equal(
        (await client.runCleanup({ retention: { keepLast: 1 }, plan: plan.plan_id })).removed.includes(id),
        false,
        "it is looked into",
      );
      assert.deepEqual(shownOf(readFolder(view.path)), shownOf(contents));
      // Writes into the view by root are in no point.
      fs.writeFileSync(path.join(view.path, "same/kept.txt"), "written into the view\n");
      await client.closeView(view.view_id);
      assert.equal(fs.existsSync(view.path), false);
      await client.restore({ target: id });
      assertFolder(folder, contents, "restored");
      assert.deepEqual((await client.verifyAll()).problems, []);
      await client.seal();
      assertHeldTidy(place, "looked into");
    },
    { fill: makeFirst },
  );

  if (holds) unsealedClauses(clause);
}

function unsealedClauses(clause: EngineClauses["clause"]): void {
  clause(
    "verify --all does not report a point as damaged that another process saves meanwhile",
    async ({ client, folder }) => {
      await client.save();
      await client.seal();
      fs.writeFileSync(path.join(folder, "later"), "later\n");
      await client.save();
      // The same state as after `verify --all` has sealed the points that existed.
      const workspace = new Workspace(findWorkspace(folder)!, {
        engine: (found, options) => new PointStore({ ...options, control: found.control.root }),
        recoveries: [],
      });
      const warnings: string[] = [];
      const onWarning = (message: string): number => warnings.push(message);
      const newest = new Map([[workspace.found.workspace.name, 1]]);
      const all = await verifyAll(workspace, { onWarning, newest });
      assert.deepEqual([all.checked.points, all.problems, all.unverified, warnings], [1, [], [], []]);
      const { unverified } = await verifyAll(workspace, {});
      assert.match(unverified.map(({ detail }) => detail).join(), /is not sealed, so its content was not verified$/);
      await assert.rejects(verifyPoint(workspace, "latest", {}), /is not sealed/);
      const pieces: Uint8Array[] = [];
      for await (const piece of read(
        { workspace, backups: async () => assert.fail("no repository is opened") },
        "latest",
        "later",
        {},
      ))
        pieces.push(piece);
      assert.equal(Buffer.concat(pieces).toString(), "later\n");
      await workspace.close();
      assert.deepEqual((await client.verify("latest")).problems, []);
    },
    { fill: makeFirst },
  );
}
