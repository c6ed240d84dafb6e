import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { killAt, oneOf, passesOf } from "../../../../test/crash/rounds.ts";
import { cairn, cairnOk } from "../../../../test/fixtures/command.ts";
import { type EngineClauses, removeFolder } from "../../../../test/fixtures/engine-clauses.ts";
import { assertFolder } from "../../../../test/fixtures/folder-state.ts";
import { assertHeldTidy } from "../../../../test/fixtures/held-place.ts";
import { makeUnsaved } from "../../../../test/fixtures/two-states.ts";
import { cairnLibrary, resticCheck } from "../../../../test/fixtures/work.ts";
import { walkDigests } from "../testing-walk.ts";
import { anyPass, killClause, type KillScene, passesToKill } from "./kill-scene.contract.ts";

/**
 * Kills restores and forks: exchanges at every step, other restores and forks at the engine's own steps. The other
 * steps are killed one by one in test/crash/restore.flow.test.ts and test/crash/fork.flow.test.ts.
 */
export function killRestoreClauses(clauses: EngineClauses): void {
  const { atomic, holds } = clauses;
  for (const method of atomic ? (["exchange", "entries"] as const) : (["entries"] as const)) {
    killClause(
      clauses,
      `a restore by ${method} killed at any step ends in the old or the new state, even if its recovery is killed too`,
      async (scene) => killRestores(scene, { method, isSealed: true, thorough: method === "exchange" }),
    );
  }
  if (holds) {
    killClause(
      clauses,
      "a restore of an unsealed point by clones, killed at any step, ends in the old or the new state",
      async (scene) => killRestores(scene, { method: "entries", isSealed: false, thorough: false }),
    );
  }

  killClause(clauses, "a fork killed at any step is complete or does not exist", async (scene) =>
    killForks(clauses, scene, true),
  );
  if (atomic)
    killClause(clauses, "a fork of an unsealed point killed at any step is complete or does not exist", async (scene) =>
      killForks(clauses, scene, false),
    );
}

async function killForks({ holds }: EngineClauses, scene: KillScene, isSealed: boolean): Promise<void> {
  const { client, folder, volume } = scene.place;
  if (isSealed) await client.seal();
  const { state, digest } = scene.now();
  const { save_point_id: id } = await client.resolve("head");
  const forkTo = (target: string): string[] => ["fork", id, target, "-C", folder];
  const library = await cairnLibrary();
  const target = path.join(volume.root, "fork");
  const names = passesOf(forkTo(target));
  const remove = async (): Promise<void> => {
    await (await library.open(target)).release({ deletePoints: true });
    removeFolder(volume, target);
  };
  await remove();
  const outcomes = new Set<boolean>();
  const own = !isSealed ? /./ : holds ? /^(?:write|clone|juicefs|fork)\./ : /^fork\./;
  for (const pass of passesToKill(names, { thorough: false, own })) {
    const kills = [killAt(forkTo(target), pass)];
    if (pass % 2 === 0) kills.push(killAt(["status", "-C", folder], anyPass(8)));
    const where = `fork killed at ${kills.join(", then ")}`;
    await scene.save();
    if (isSealed) await client.seal();
    else await client.show("head");
    const made = fs.existsSync(target);
    outcomes.add(made);
    if (made) {
      assertFolder(target, state, where);
      const fork = await library.open(target);
      assert.equal((await fork.status()).clean, true, where);
      if (!isSealed) await fork.show("head");
      const { save_points: points } = await fork.history(undefined, 0, { all: true });
      assert.deepEqual(
        points.map(({ payload_root_hash: each }) => each),
        [digest],
        where,
      );
      await remove();
    } else await assert.rejects(library.open(target), where);
    assert.deepEqual(
      fs.readdirSync(volume.root).filter((each) => each.includes("cairn-partial")),
      [],
      where,
    );
    assertHeldTidy(scene.place, where);
  }
  assert.equal(outcomes.size, 2, "both outcomes were seen");
  resticCheck(client, "forked");
}

/** Kills a command at the last pass of its trace, by the name of that failpoint. */
function killAtLast(args: readonly string[], names: readonly string[]): string {
  const last = names.at(-1)!;
  assert.ok(cairn(args, { failpoint: last }).killed, `killed at ${last}`);
  return last;
}

async function killRestores(
  scene: KillScene,
  how: { method: "exchange" | "entries"; isSealed: boolean; thorough: boolean },
): Promise<void> {
  const { client, folder } = scene.place;
  const { method, isSealed, thorough } = how;
  const { state: first } = scene.now();
  makeUnsaved(folder);
  const { state: unsaved } = scene.now();
  cairnOk(["-C", folder, "restore", "head"]);
  assertFolder(folder, first, "restored");
  /** Brings the folder into a state that was never saved. Returns a restore to a point of the first state that has its tree. */
  const prepare = async (): Promise<string[]> => {
    const { save_point_id: id } = await client.save();
    if (isSealed) await client.seal();
    await client.undo({ method });
    assertFolder(folder, unsaved, "prepared");
    return ["-C", folder, "restore", id, "--method", method];
  };
  const names = passesOf(await prepare());
  const outcomes = new Set<string>();
  const own = /^(?:capture|clone|juicefs)\.|^restore\.(?:intent|committed|step)$/;
  for (const pass of passesToKill(names, { thorough, own })) {
    assertFolder(folder, first, `before pass ${pass}`);
    const restore = await prepare();
    const { save_points: old } = await client.history(undefined, 0, { all: true });
    // A restore after a restore may seal points first, so its last pass has another number than in the traced one.
    const killed = [pass === names.length ? killAtLast(restore, names) : killAt(restore, pass)];
    // The next call finishes the restore or rolls it back. If that call is killed too, the one after it does.
    if (pass % 2 === 0) killed.push(killAt(["-C", folder, "save"], anyPass(6)));
    const where = `killed at ${killed.join(" and ")}`;
    await client.save({ message: "next" });
    const now = oneOf(folder, { first, unsaved }, where);
    outcomes.add(now);
    const { save_points: points, damaged } = await client.history(undefined, 0, { all: true });
    assert.deepEqual(damaged, [], where);
    const known = new Set(old.map(({ save_point_id: each }) => each));
    const undo = points.filter(({ save_point_id: id, cause }) => !known.has(id) && cause.kind === "restore");
    if (method === "exchange") assert.equal(undo.length, now === "first" ? 1 : 0, `${where}: the undo point`);
    else assert.ok(undo.length <= 1 && (now !== "first" || undo.length === 1), `${where}: the undo point`);
    if (isSealed) await client.seal();
    else await client.show("head");
    assertHeldTidy(scene.place, where);
    if (now === "first") {
      await client.undo({ method });
      assertFolder(folder, unsaved, `${where}, undone`);
    }
    await client.restore({ target: restore[3]!, method });
    assertFolder(folder, first, where);
  }
  assert.equal(outcomes.size, 2, "both outcomes were seen");
  await client.seal();
  assert.equal((await client.status()).clean, true);
  assert.deepEqual((await client.verifyAll()).problems, []);
  assert.equal(walkDigests(folder).state, (await client.resolve("head")).payload_root_hash);
  resticCheck(client, method);
}
