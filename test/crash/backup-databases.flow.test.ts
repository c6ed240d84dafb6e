import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { cairn, SCRATCH } from "../fixtures/command.ts";
import { backup, newRepository } from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";

/** Backups of a database that is stored page by page, killed anywhere: a snapshot has all files that it lists. */

test("backup create, if killed, leaves no snapshot with half a database, and a second run makes the snapshot", async () => {
  const place = await newRepository("of-databases");
  const folder = newFolder("databases");
  const file = path.join(folder, "large.db");
  const write = (...statements: string[]): void => {
    const open = new DatabaseSync(file);
    for (const each of ["PRAGMA synchronous = OFF", ...statements]) open.exec(each);
    open.close();
  };
  write(
    "CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT, content BLOB)",
    `WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 18000)
       INSERT INTO t SELECT id, 'row ' || id, zeroblob(3900) FROM n`,
  );
  const create = ["backup", "create", "-C", folder, ...place.options];
  const snapshots = (): { snapshot_id: string }[] =>
    (backup(place, "list").data as { snapshots: { snapshot_id: string }[] }).snapshots;
  const states: string[] = [];
  const assertSound = (where: string): void => {
    const { problems, checked } = backup(place, "verify").data as {
      problems: { severity: string }[];
      checked: { digests: number };
    };
    assert.deepEqual(
      problems.filter(({ severity }) => severity === "damage"),
      [],
      where,
    );
    assert.equal(checked.digests, snapshots().length, where);
  };
  for (const [n, name] of ["backup.transferred", "backup.pages-written", "backup.snapshot-written"].entries()) {
    const before = n === 0 ? 0 : snapshots().length;
    if (n > 0) write(`UPDATE t SET text = 'round ${n}' WHERE id % 500 = ${n}`);
    states.push(walkDigests(folder).state);
    const done = cairn(create, { failpoint: name });
    assert.ok(done.killed, name);
    assert.equal(snapshots().length, before + (name === "backup.snapshot-written" ? 1 : 0), name);
    assertSound(name);
    assert.equal(cairn(create).status, 0, name);
    assertSound(`after ${name}`);
  }
  const target = path.join(SCRATCH, "restored-databases");
  const restore = ["backup", "restore", "latest", "--to", target, ...place.options];
  assert.ok(cairn(restore, { failpoint: "restore-backup.database-written" }).killed);
  assert.ok(!fs.existsSync(target));
  assert.equal(cairn(restore).status, 0);
  assert.equal(walkDigests(target).state, states.at(-1));
  assert.deepEqual(fs.readdirSync(target), ["large.db"]);
});

test("backup create, if killed while a probe's copy is there, makes no snapshot, and the next save removes the copy", async () => {
  const place = await newRepository("of-probes");
  const folder = newFolder("probes");
  fs.writeFileSync(path.join(folder, "letter"), "one");
  const create = ["backup", "create", "-C", folder, ...place.options, "--probe", 'cat "$DIR/letter"'];
  assert.equal(cairn(create).status, 0);
  fs.writeFileSync(path.join(folder, "letter"), "two");
  const copies = (): string[] => fs.globSync(path.join(SCRATCH, "**/tmp/work-*/point/letter"));
  const count = (): number => (backup(place, "list").data as { snapshots: unknown[] }).snapshots.length;
  assert.ok(cairn(create, { failpoint: "backup.probing" }).killed);
  assert.deepEqual([count(), copies().length], [1, 1]);
  assert.equal(cairn(["save", "-C", folder]).status, 0);
  assert.deepEqual(copies(), []);
  const made = cairn(create);
  assert.deepEqual([made.status, (made.data["probes"] as { output: string }[])[0]!.output], [0, "two"]);
  const checked = cairn(["backup", "verify", "--subset", "none", "--restore-check", ...place.options]);
  assert.equal(checked.status, 0);
  // Another machine does not know the command, and says so.
  const elsewhere = { env: { XDG_STATE_HOME: newFolder("other-state") } };
  const unasked = cairn(["backup", "verify", "--subset", "none", "--restore-check", ...place.options], elsewhere);
  assert.equal(unasked.status, 10);
});
