import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import type { Client } from "../../src/operations/contract.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { assertNoLeftovers, clientOf, newFolder, resticCheck } from "../fixtures/work.ts";
import { chosenPasses, killAt, passesOf, random, saveAndCheck, SEED } from "./rounds.ts";

let failed = true;
after(() => {
  if (failed) process.stderr.write(`cleanup.test.ts: repeat with CAIRN_TEST_SEED=${SEED}\n`);
});

/** Ids of so many new points, each with content of its own beside content of the others. */
async function addPoints(client: Client, folder: string, count: number): Promise<string[]> {
  const ids: string[] = [];
  for (let i = 0; i < count; i++) {
    fs.writeFileSync(path.join(folder, `own-${i % 3}`), randomBytes(40_000));
    ids.push((await client.save()).save_point_id);
  }
  return ids;
}

function planId(folder: string): string {
  const { plan } = cairnOk(["cleanup", "--keep-last", "3", "--plan", "-C", folder]).data as {
    plan: { plan_id: string };
  };
  return plan.plan_id;
}

async function listed(client: Client): Promise<string[]> {
  const { save_points, damaged } = await client.history();
  assert.deepEqual(damaged, []);
  return save_points.map(({ save_point_id }) => save_point_id).toReversed();
}

test("a cleanup that is killed at any step has removed nothing or exactly what was listed, and no content that is needed", async () => {
  const folder = newFolder("cleanup");
  fs.writeFileSync(path.join(folder, "shared"), randomBytes(60_000));
  const client = await clientOf(folder);
  await addPoints(client, folder, 6);
  const names = passesOf(["cleanup", "--run", planId(folder), "-C", folder]);
  const outcomes = new Set<string>();
  for (const pass of chosenPasses(names, 24)) {
    await addPoints(client, folder, 3);
    const before = await listed(client);
    const plan = planId(folder);
    const kills = [killAt(["cleanup", "--run", plan, "-C", folder], pass)];
    if (pass % 2 === 0) kills.push(killAt(["save", "--skip-unchanged", "-C", folder], 1 + Math.floor(random() * 20)));
    const where = `cleanup killed at ${pass} (${kills.join(", then ")})`;
    await saveAndCheck(client, folder, where);
    const now = await listed(client);
    const old = now.filter((id) => before.includes(id));
    const outcome = old.length === before.length ? "nothing" : "all";
    outcomes.add(outcome);
    if (outcome === "all") assert.deepEqual(old, before.slice(-3), where);
    assertNoLeftovers(client, folder, where);
    if (outcome === "all")
      assert.equal(
        cairn(["cleanup", "--run", plan, "-C", folder]).status === 0,
        false,
        `${where}: the plan ran already`,
      );
    const target = path.join(folder, `../checked-${pass}`);
    await client.restore({ target: old[0]!, to: target });
    fs.rmSync(target, { recursive: true });
    if (pass % 4 === 0) resticCheck(client, where);
  }
  assert.equal(outcomes.size, 2, "both outcomes were seen");
  const verified = await client.verifyAll();
  assert.deepEqual(verified.problems, []);
  // What is dead goes with the last cleanup, whatever was killed before.
  cairnOk(["cleanup", "--keep-last", "1", "-C", folder]);
  resticCheck(client, "the last cleanup");
  const data = fs
    .readdirSync(path.join(client.controlDirectory, "store/data"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile());
  const bytes = data.reduce((sum, entry) => sum + fs.statSync(path.join(entry.parentPath, entry.name)).size, 0);
  assert.ok(bytes < 400_000, `${bytes} bytes are left`);
  failed = false;
});
