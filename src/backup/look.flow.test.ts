import assert from "node:assert/strict";
import { mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import type { BackupRepository } from "../contract/index.ts";
import { backupScene, type BackupScene, opened } from "./testing-far.ts";

/** Has something done when snapshots and index have been read and the lock of the call that reads them is not placed yet. */
function beforeNextLock(work: () => Promise<void>): void {
  const far = opened.far!;
  const save = far.save.bind(far);
  far.save = async (kind, ...rest) => {
    if (kind === "locks") {
      far.save = save;
      await sleep(200);
      await work();
    }
    return save(kind, ...rest);
  };
}

/** Has something done once that lock is placed, by somebody who looked around before, and is done before it is looked around again. */
function beforeNextLook(place: string, work: () => Promise<void>): void {
  const far = opened.far!;
  const list = far.list.bind(far);
  let looks = 0;
  far.list = async (kind, ...rest) => {
    if (kind === "locks" && ++looks === 2) {
      const [locks, aside] = [join(place, "locks"), join(place, "locks-aside")];
      renameSync(locks, aside);
      mkdirSync(locks);
      await work();
      rmSync(locks, { recursive: true });
      renameSync(aside, locks);
    }
    return list(kind, ...rest);
  };
}

/** The same repository, opened by another program of this machine. */
async function another({ library, place }: BackupScene): Promise<BackupRepository> {
  return library.openRepository({ repository: `local:${place}`, password: "correct horse" });
}

test("a call to a remote repository reads the lists of snapshots and index files before and after it locks", async (t) => {
  const { client, repository, write } = await backupScene(t, "far");
  await client.createBackup(repository, { save: true });
  const far = opened.far!;
  const list = far.list.bind(far);
  const save = far.save.bind(far);
  const calls: [string, () => Promise<unknown>][] = [
    ["find", async () => repository.find("a.txt")],
    ["a backup of what is saved meanwhile", async () => client.createBackup(repository, { save: true })],
    ["a backup of a point", async () => client.createBackup(repository, { point: "latest" })],
    ["a backup of a stream", async () => repository.createFromCommand(["date"])],
  ];
  for (const [what, call] of calls) {
    write("a.txt", `${Math.random()}\n`);
    const asked: string[] = [];
    far.list = async (kind, ...rest) => {
      asked.push(kind);
      return list(kind, ...rest);
    };
    far.save = async (kind, ...rest) => {
      if (kind === "locks") asked.push("lock");
      return save(kind, ...rest);
    };
    await call();
    assert.deepEqual(asked.slice(0, 4).toSorted(), ["index", "lock", "locks", "snapshots"], what);
    assert.deepEqual(asked.slice(4, 7), ["locks", "snapshots", "index"], what);
    const later = asked.slice(7).filter((kind) => kind !== "locks");
    assert.deepEqual(later, what === "find" ? [] : ["data"], `${what}: only a backup compares the sizes of packs`);
  }
});

test("calls fetch the trees of many remote packs several at once", async (t) => {
  const { client, repository, write, root } = await backupScene(t, "far");
  const packs = 12;
  for (let i = 0; i < packs; i++) {
    write(`part-${i}/file`, `${i}\n`);
    await client.createBackup(repository, { save: true });
  }
  const first = (await repository.list()).snapshots[0]!.snapshot_id;
  const far = opened.far!;
  const load = far.load.bind(far);
  let waits = 0;
  let underWay = 0;
  far.load = async (...of) => {
    if (underWay++ === 0) waits++;
    await sleep(50);
    return load(...of).finally(() => underWay--);
  };
  const calls: [string, () => Promise<unknown>, number][] = [
    ["restore", async () => repository.restore("latest", join(root, "restored")), 7],
    ["find", async () => repository.find("file"), 5],
    ["diff", async () => repository.diff(first, "latest"), 9],
    ["stats", async () => repository.stats({ snapshots: [first, "latest"] }), 5],
    ["verify", async () => repository.verify({ quick: true }), 7],
    ["prune", async () => repository.prune({ instant: true, dryRun: true }), 6],
  ];
  for (const [what, call, most] of calls) {
    waits = 0;
    await call();
    assert.ok(waits <= most, `${what}: ${waits} answers one after the other, of ${packs} packs`);
  }
});

test("restore of a snapshot that is uploaded while the index is read restores its own content", async (t) => {
  const at = await backupScene(t, "far");
  const { client, repository, write, root } = at;
  await client.createBackup(repository, { save: true });
  await using other = await another(at);
  write("new.txt", "came meanwhile\n");
  beforeNextLock(async () => void (await client.createBackup(other, { save: true })));
  const { proof, left_out: leftOut } = await repository.restore("latest", join(root, "restored"));
  assert.deepEqual(leftOut, []);
  assert.notEqual(proof, null);
  assert.equal(readFileSync(join(root, "restored/new.txt"), "utf8"), "came meanwhile\n");
});

for (const [when, during] of [
  ["before the lock is placed", (_place: string, work: () => Promise<void>) => beforeNextLock(work)],
  ["by somebody who did not see the lock", beforeNextLook],
] as const) {
  test(`restore and createBackup find content that a prune repacked ${when}`, async (t) => {
    const at = await backupScene(t, "far");
    const { client, repository, write, root, place } = at;
    await client.createBackup(repository, { save: true });
    write("many/1", "another\n");
    await client.createBackup(repository, { save: true });
    await using other = await another(at);
    const clean = async (): Promise<void> => {
      await other.forget({ retention: { keepLast: 1 } });
      const { removed_packs: removed, repacked_packs: repacked } = await other.prune({ instant: true, maxUnused: 0 });
      assert.ok(removed + repacked > 0);
    };
    during(place, clean);
    const { proof } = await repository.restore("latest", join(root, "restored"));
    assert.notEqual(proof, null);
    // What is saved now was in the snapshot that goes meanwhile, and in none of the others.
    write("many/1", "one more\n");
    await client.createBackup(repository, { save: true });
    const text = readFileSync(join(at.folder, "many/2"), "utf8");
    write("many/2", "not this\n");
    await client.createBackup(repository, { save: true });
    write("many/2", text);
    during(place, clean);
    await client.createBackup(repository, { save: true });
    assert.deepEqual((await repository.verify()).problems, []);
    assert.equal((await repository.list()).snapshots.length, 2);
  });
}

test("copyTo writes no further snapshot if its lock ends while the process stands still", async (t) => {
  const { client, library, repository, write, root } = await backupScene(t, "local");
  for (let i = 0; i < 2; i++) {
    write("a.txt", `${i}\n`);
    await client.createBackup(repository, { save: true });
  }
  const place = join(root, "copy");
  await (await library.initRepository({ repository: `local:${place}`, password: "another" })).close();
  const target = await library.openRepository({ repository: `far:${place}`, password: "another" });
  const far = opened.far!;
  const save = far.save.bind(far);
  far.save = async (kind, name, ...rest) => {
    await save(kind, name, ...rest);
    if (kind !== "snapshots") return;
    for (const { name: lock } of await far.list("locks")) await far.remove("locks", lock);
    await sleep(1100);
  };
  await assert.rejects(repository.copyTo(target), { code: "busy" });
  assert.equal((await target.list()).snapshots.length, 1);
  await target.close();
});
