import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { walkDigests } from "../workspace/store/testing-walk.ts";
import { CairnError } from "../errors.ts";
import type { Fault } from "../repository/storage/testing-faulty.ts";
import { hasCode } from "../keep/testing-folder.ts";
import { backupScene, opened } from "./testing-far.ts";

/** A storage that fails in the middle of a backup: what was acknowledged stays, and the next call converges. */

const UPLOADS: Fault[] = [
  { operation: "saveFile", kind: "data", fault: "fail" },
  { operation: "saveFile", kind: "data", fault: "no_space", after: 1 },
  { operation: "saveFile", kind: "data", fault: "late_success" },
  { operation: "save", kind: "index", fault: "fail" },
  { operation: "save", kind: "index", fault: "late_success" },
  { operation: "save", kind: "snapshots", fault: "fail" },
  { operation: "save", kind: "snapshots", fault: "late_success" },
];

test("a backup of a folder succeeds when it is repeated after a failed storage call", async (t) => {
  const { client, repository, folder, write, root } = await backupScene(t, "faulty");
  const faulty = opened.faulty!;
  await client.createBackup(repository, { save: true });
  for (const [i, fault] of UPLOADS.entries()) {
    write("a.txt", `round ${i}\n`);
    const before = (await repository.list()).snapshots.map(({ snapshot_id: id }) => id);
    faulty.arm(fault);
    const wanted = fault.fault === "no_space" ? "no_space" : "io";
    await assert.rejects(client.createBackup(repository, { save: true }), hasCode(wanted), JSON.stringify(fault));
    faulty.disarm();
    const { snapshot } = await client.createBackup(repository, { save: true });
    const after = (await repository.list()).snapshots.map(({ snapshot_id: id }) => id);
    assert.deepEqual(
      before.filter((id) => !after.includes(id)),
      [],
    );
    assert.ok(after.includes(snapshot!.snapshot_id));
  }
  const { problems } = await repository.verify();
  assert.deepEqual(
    problems.filter(({ severity }) => severity === "damage"),
    [],
  );
  await repository.restore("latest", join(root, "restored"));
  assert.equal(walkDigests(join(root, "restored")).state, walkDigests(folder).state);
  const { unindexed_packs: unindexed } = await repository.prune({ instant: true });
  assert.ok(unindexed <= UPLOADS.length * 2);
  assert.deepEqual((await repository.verify()).problems, []);
});

test("a backup of several paths succeeds when it is repeated after a failed storage call", async (t) => {
  const { repository, folder, write, root } = await backupScene(t, "faulty");
  const paths = [join(folder, "many"), join(folder, "deep"), join(folder, "a.txt")];
  for (const [i, fault] of UPLOADS.entries()) {
    write("a.txt", `round ${i}\n`);
    write("many/large", randomBytes(12 << 20).toString("latin1"));
    opened.faulty!.arm(fault);
    const wanted = fault.fault === "no_space" ? "no_space" : "io";
    await assert.rejects(repository.createFromPaths(paths), hasCode(wanted), JSON.stringify(fault));
    opened.faulty!.disarm();
    // One that was written late is there, and is no failure of the next.
    const { snapshot } = await repository.createFromPaths(paths);
    assert.deepEqual(snapshot!.paths, paths.toSorted());
  }
  assert.deepEqual(
    (await repository.verify()).problems.filter(({ severity }) => severity === "damage"),
    [],
  );
  await repository.restore("latest", join(root, "restored"), { subfolder: folder });
  for (const name of ["many", "deep"])
    assert.equal(walkDigests(join(root, "restored", name)).state, walkDigests(join(folder, name)).state);
  const signal = AbortSignal.abort();
  await assert.rejects(repository.createFromPaths(paths, { signal }), hasCode("interrupted"));
});

test("restore never restores a pack as intact that was read wrongly", async (t) => {
  const { client, repository, root } = await backupScene(t, "faulty");
  await client.createBackup(repository, { save: true });
  for (const fault of ["flip", "truncate", "lose"] as const) {
    opened.faulty!.arm({ operation: "load", kind: "data", fault, times: 1000 });
    const target = join(root, `restored-${fault}`);
    let said: unknown = null;
    try {
      const { left_out: leftOut, proof } = await repository.restore("latest", target);
      said = leftOut.length > 0 && proof === null;
    } catch (error) {
      said = error instanceof CairnError && (error.code === "damaged" || error.code === "io");
    }
    assert.equal(said, true, fault);
    assert.ok(
      (await repository.verify()).problems.some(({ severity }) => severity === "damage"),
      fault,
    );
    opened.faulty!.disarm();
  }
  assert.deepEqual((await repository.verify()).problems, []);
});

test("restore after a lost connection fetches only the packs that were not fetched before", async (t) => {
  const at = await backupScene(t, "faulty");
  const { client, repository, folder, write, root } = at;
  for (let i = 0; i < 8; i++) write(`large/${i}`, randomBytes(9 << 20).toString("base64"));
  await client.createBackup(repository, { save: true });
  const faulty = opened.faulty!;
  faulty.disarm();
  await repository.restore("latest", join(root, "whole"));
  const loads = faulty.calls.get("load data")!;
  faulty.disarm();
  faulty.arm({ operation: "load", kind: "data", fault: "fail", after: loads - 3, times: 1000 });
  const target = join(root, "restored");
  await assert.rejects(repository.restore("latest", target), (error) => {
    assert.ok(error instanceof CairnError && error.code === "io");
    assert.match(error.message, /content of ".+"(?: and more content of \d+ packs)? was not fetched/);
    assert.match(error.hint!, /is not fetched again/);
    return true;
  });
  assert.equal(existsSync(target), false);
  faulty.disarm();
  await repository.restore("latest", target);
  const again = faulty.calls.get("load data") ?? 0;
  // Each of the three may share a blob with the part before it and with the one behind it.
  assert.ok(again >= 1 && again <= 9, `${again} of ${loads} loads were needed`);
  assert.equal(walkDigests(target).state, walkDigests(folder).state);
});

test("a restore check fetches all packs again, also those that an earlier restore cached", async (t) => {
  const { client, repository, root } = await backupScene(t, "faulty");
  await client.createBackup(repository, { save: true });
  const faulty = opened.faulty!;
  faulty.disarm();
  faulty.arm({ operation: "load", kind: "data", fault: "fail", after: 2, times: 1000 });
  await assert.rejects(repository.restore("latest", join(root, "restored")), hasCode("io"));
  faulty.disarm();
  faulty.arm({ operation: "load", kind: "data", fault: "lose", times: 1000 });
  const { problems } = await repository.verify({ restoreCheck: true });
  assert.ok(problems.some(({ kind }) => kind === "restore_failed"));
});
