import assert from "node:assert/strict";
import { killAt, passesOf, someOf } from "../../../../test/crash/rounds.ts";
import { firstOf } from "../../../../test/fixtures/long.ts";
import type { EngineClauses } from "../../../../test/fixtures/engine-clauses.ts";
import { assertHeldTidy } from "../../../../test/fixtures/held-place.ts";
import { leftoversOf, resticCheck } from "../../../../test/fixtures/work.ts";
import { anyPass, killClause, passesToKill } from "./kill-scene.contract.ts";

/** Kills saves and seals. A save is each engine's own code, so each engine's save is killed at every step. */
export function killSaveClauses(clauses: EngineClauses): void {
  const { holds, thorough } = clauses;
  const title = "killed";

  killClause(
    clauses,
    "a save killed at any step makes one complete point or none, and the next save removes its leftovers",
    async (scene) => {
      const { client, folder } = scene.place;
      scene.edit();
      const traced = scene.now();
      const names = passesOf(["save", folder]);
      scene.set((await scene.ids(title)).at(-1)!, traced);
      assert.ok(names.length >= 8, names.join(" "));
      const others = (): string[] =>
        leftoversOf(client.controlDirectory).filter((name) => !/\/points\/|(^|\/)lock$/.test(name));
      const left = others();
      const outcomes = new Set<number>();
      for (const round of firstOf([0, 1], 1)) {
        for (const pass of someOf(
          names.map((_name, i) => i + 1),
          thorough ? 6 : 4,
        )) {
          const before = await scene.ids(title);
          const wanted = scene.edit();
          const kills = [killAt(["save", folder, "-m", "killed"], pass)];
          const first = `round ${round}: save killed at ${kills[0]}`;
          outcomes.add(await scene.afterSave(before, wanted, first));
          // Kill the recovering call, too, once or twice.
          const again = round > 0 ? 1 + (pass % 4 === 1 ? 1 : 0) : Number(pass % 3 === 0);
          for (let i = 0; i < again; i++) {
            const meanwhile = await scene.ids(first);
            kills.push(killAt(["save", folder], anyPass(names.length)));
            await scene.afterSave(meanwhile, wanted, `${first}, then ${kills.at(-1)}`);
          }
          const where = `round ${round}: save killed at ${kills.join(", then ")}`;
          const id = await scene.save();
          assert.equal((await client.history()).head, id, where);
          assertHeldTidy(scene.place, where);
          if (!holds) assert.deepEqual(others(), left, where);
          if (pass % 5 === 0) await scene.check(where, 1);
        }
        await scene.check(`round ${round}`, 4);
        await scene.keepLast(4);
      }
      resticCheck(client, title);
      assert.equal(outcomes.size, 2, "both outcomes were seen");
      assertHeldTidy(scene.place, title);
    },
  );

  if (!holds) return;
  killClause(
    clauses,
    "a seal killed at any step loses no point, and the next call finishes the seal",
    async (scene) => {
      const { client, folder } = scene.place;
      // More points than the number of kept trees, so that old trees are removed.
      for (let i = 0; i < 8; i++) await scene.save();
      await client.seal();
      for (let i = 0; i < 2; i++) await scene.save();
      const names = passesOf(["seal", "-C", folder]);
      for (const name of ["seal.staged", "seal.committed", "held-tree.gone"])
        assert.ok(names.includes(name), names.join(" "));
      const own = /^held-tree\.|^seal\.(?:staged|committed)$/;
      for (const pass of passesToKill(names, { thorough, own })) {
        const before = await scene.ids(title);
        const added = [await scene.save(), await scene.save()];
        const kills = [killAt(["seal", "-C", folder], pass)];
        if (pass % 2 === 0) kills.push(killAt(["seal", "-C", folder], anyPass(names.length)));
        if (pass % 3 === 0) kills.push(killAt(["status", "-C", folder], anyPass(names.length)));
        const where = `seal killed at ${kills.join(", then ")}`;
        assert.deepEqual(await scene.ids(where), [...before, ...added], where);
        assert.equal((await client.history()).head, added[1], where);
        await scene.check(where, pass % 3 === 0 ? 1 : 0);
        if (pass % 6 !== 0) continue;
        resticCheck(client, where);
        await scene.keepLast(9);
      }
      await scene.check(title, 5);
    },
  );
}
