import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import type { BackupRepository } from "../contract.ts";
import { backupScene, type BackupScene, opened } from "./testing-far.ts";

/** Has something done when the index has been read and the lock of the call that reads it is not placed yet. */
function beforeNextLock(work: () => Promise<void>): void {
  const far = opened.far!;
  const save = far.save.bind(far);
  far.save = async (kind, ...rest) => {
    if (kind === "locks") {
      far.save = save;
      while (far.count("list", "index") === 0) await sleep(10);
      await sleep(100);
      await work();
    }
    return save(kind, ...rest);
  };
  far.counts.clear();
}

/** The same repository, opened by another program of this machine. */
async function another({ library, place }: BackupScene): Promise<BackupRepository> {
  return library.openRepository({ repository: `local:${place}`, password: "correct horse" });
}

test("far away the index is asked for before the lock is there, and snapshots before it is known to be the only one", async (t) => {
  const { client, repository } = await backupScene(t, "far");
  await client.createBackup(repository, { save: true });
  const far = opened.far!;
  const asked: string[] = [];
  const list = far.list.bind(far);
  far.list = async (kind, ...rest) => {
    asked.push(kind);
    return list(kind, ...rest);
  };
  const save = far.save.bind(far);
  far.save = async (...of) => {
    await save(...of);
    asked.push("placed");
  };
  await repository.find("a.txt");
  assert.deepEqual(asked.toSpliced(asked.lastIndexOf("index"), 1), ["index", "locks", "placed", "snapshots", "locks"]);
});

test("a backup far away asks for what it is made beside while its lock is looked around for", async (t) => {
  const { client, repository, write } = await backupScene(t, "far");
  await client.createBackup(repository, { save: true });
  const far = opened.far!;
  const list = far.list.bind(far);
  for (const backUp of [
    async () => client.createBackup(repository, { save: true }),
    async () => client.createBackup(repository, { point: "latest" }),
    async () => repository.createFromCommand(["date"]),
  ]) {
    write("a.txt", `${Math.random()}\n`);
    const asked: string[] = [];
    far.list = async (kind, ...rest) => {
      asked.push(kind);
      return list(kind, ...rest);
    };
    await backUp();
    assert.deepEqual(asked.slice(0, 5), ["index", "locks", "snapshots", "index", "locks"]);
    assert.equal(asked.filter((kind) => kind !== "locks").length, 3);
  }
});

test("trees that lie in many packs far away are brought several at once", async (t) => {
  const { client, repository, write, root } = await backupScene(t, "far");
  const packs = 12;
  for (let i = 0; i < packs; i++) {
    write(`part-${i}/file`, `${i}\n`);
    await client.createBackup(repository, { save: true });
  }
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
    ["verify", async () => repository.verify({ quick: true }), 7],
    ["prune", async () => repository.prune({ dryRun: true }), 6],
  ];
  for (const [what, call, most] of calls) {
    waits = 0;
    await call();
    assert.ok(waits <= most, `${what}: ${waits} answers one after the other, of ${packs} packs`);
  }
});

test("a snapshot that comes while the index is read far away is restored, with what it alone has", async (t) => {
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

test("what was moved while the index is read far away is found where it is", async (t) => {
  const at = await backupScene(t, "far");
  const { client, repository, write, root } = at;
  await client.createBackup(repository, { save: true });
  write("many/1", "another\n");
  await client.createBackup(repository, { save: true });
  await using other = await another(at);
  const indexes = await repository.stats();
  beforeNextLock(async () => {
    await other.forget({ retention: { keepLast: 1 } });
    await other.prune({ maxUnused: 0 });
  });
  const { proof } = await repository.restore("latest", join(root, "restored"));
  assert.notEqual(proof, null);
  assert.notDeepEqual(await repository.stats(), indexes);
});
