import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Fault } from "../repository/storage/testing-faulty.ts";
import { type BackupScene, backupScene, faults, opened } from "./testing-far.ts";

/** What came over a network and is not what was written: wrong once on its way, or wrong in the repository. */

interface Reading {
  warnings: string[];
  leftOut: number;
  isProven: boolean;
  damage: string[];
}

/** A restore and a verification, as if by a process that has nothing of the repository here. */
async function readAnew({ library, options, root }: BackupScene, fault: Fault): Promise<Reading> {
  rmSync(process.env["XDG_CACHE_HOME"]!, { recursive: true, force: true });
  const warnings: string[] = [];
  const onWarning = (message: string): void => void warnings.push(message);
  faults.splice(0, 1, fault);
  const repository = await library.openRepository({ ...options, onWarning });
  try {
    const target = join(root, `restored-${fault.fault}-${fault.times}`);
    const { left_out: leftOut, proof } = await repository.restore("latest", target, { onWarning });
    const { problems } = await repository.verify({ onWarning });
    const damage = problems.filter(({ severity }) => severity === "damage").map(({ detail }) => detail);
    return { warnings, leftOut: leftOut.length, isProven: proof !== null, damage };
  } finally {
    await repository.close();
    faults.length = 0;
  }
}

test("a byte that is wrong once in transit is fetched again and is no damage", async (t) => {
  const scene = await backupScene(t, "retried");
  // Its packs come in several pieces.
  scene.write("large", randomBytes(20_000_000).toString("base64"));
  await scene.client.createBackup(scene.repository, { save: true });
  for (const how of ["flip", "flip_last"] as const) {
    const fault: Fault = { operation: "load", fault: how, times: 1000, firstOfEach: true };
    const { warnings, ...read } = await readAnew(scene, fault);
    assert.deepEqual(read, { leftOut: 0, isProven: true, damage: [] }, warnings.join("\n"));
    const struck = opened.faulty!.calls;
    for (const kind of ["config", "keys", "snapshots", "index", "data"])
      assert.ok(struck.get(`load ${kind}`)! > 1, `${kind} was not asked for again`);
    for (const label of ["key", "snapshot", "index", "pack"])
      assert.match(
        warnings.join("\n"),
        new RegExp(`${label} .* arrived with wrong bytes, and with the right ones when`),
      );
  }
});

test("a byte that is wrong in two reads is damage, and a warning says that the transit did not cause it", async (t) => {
  const scene = await backupScene(t, "retried");
  await scene.client.createBackup(scene.repository, { save: true });
  const fault: Fault = { operation: "load", kind: "data", fault: "flip", times: 1000 };
  const { warnings, damage } = await readAnew(scene, fault);
  assert.notDeepEqual(damage, []);
  assert.match(
    warnings.join("\n"),
    /is damaged there, and was not changed on its way: two reads returned the same wrong bytes/,
  );
});
