import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  closeSync,
  cpSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { randomFrom } from "../../workspace/store/testing-edits.ts";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import { CairnError } from "../../errors.ts";
import type { Fault, FaultKind } from "../../repository/storage/testing-faulty.ts";
import type { FileKind } from "../../repository/storage/storage.ts";
import type { BackupRepository } from "../../contract/index.ts";
import type { OpenedRepository } from "../../keep/opened-repository.ts";
import { backupScene, damageBlob, nodeAt, opened, type BackupScene } from "../testing-far.ts";
import { LONG, variant } from "../../../test/fixtures/long.ts";

/**
 * Every call that a command makes of its storage goes wrong once, or always, in each way that it can. Whatever it says then,
 * the same command ends its work once the storage is well, and nothing is lost that nobody gave up.
 */

const SEED = Number(process.env["CAIRN_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const random = randomFrom(SEED);
const LIMIT = LONG ? Infinity : 3;

const WAYS: Readonly<Record<string, readonly FaultKind[]>> = {
  save: ["fail", "no_space", "late_success", "delay"],
  saveFile: ["fail", "no_space", "late_success", "delay"],
  load: ["fail", "flip", "truncate", "lose", "late_success"],
  list: ["fail", "truncate"],
  exists: ["fail", "lose"],
  remove: ["fail", "late_success"],
  sync: ["fail"],
};

interface Care {
  scene: BackupScene;
  /** The repository as it is before each case. */
  template: string;
  run: () => Promise<unknown>;
  /** Snapshots that have to be there, and whole, however the case went; and whether others may be. */
  kept: readonly string[];
  only: boolean;
  /** False: they are not whole before the first run either. */
  isSound?: boolean;
  /** What strikes; default: some of all that can. */
  faultsOf?: (calls: ReadonlyMap<string, number>) => Fault[];
}

/** Some faults that strike: each operation that a clean run makes, in each way, at a call of its own. */
function casesOf(calls: ReadonlyMap<string, number>): Fault[] {
  const all: Fault[] = [];
  for (const [call, count] of calls) {
    const [operation, kind] = call.split(" ") as [Fault["operation"], FileKind];
    for (const fault of WAYS[operation] ?? []) {
      all.push({ operation, kind, fault, after: Math.floor(random() * count) });
      if (fault === "fail") all.push({ operation, kind, fault, times: Infinity });
    }
  }
  const chosen: Fault[] = [];
  while (chosen.length < LIMIT && all.length > 0) chosen.push(...all.splice(Math.floor(random() * all.length), 1));
  return chosen;
}

function reset({ scene, template }: Care): void {
  // The folders stay, since the storage knows them.
  for (const kind of ["data", "index", "snapshots", "locks", "keys"]) {
    rmSync(join(scene.place, kind), { recursive: true });
    cpSync(join(template, kind), join(scene.place, kind), { recursive: true });
  }
}

async function endures(care: Care): Promise<void> {
  const { scene, run, kept, only } = care;
  const faulty = opened.faulty!;
  reset(care);
  faulty.disarm();
  await run();
  const cases = (care.faultsOf ?? casesOf)(new Map(faulty.calls));
  assert.ok(cases.length >= Math.min(LIMIT, 6), `${cases.length} cases`);
  for (const fault of cases) {
    const where = `CAIRN_TEST_SEED=${SEED} ${JSON.stringify(fault)}`;
    reset(care);
    faulty.arm(fault);
    try {
      await run();
    } catch (error) {
      assert.ok(error instanceof CairnError && error.code !== "internal", `${where}: ${String(error)}`);
    }
    faulty.disarm();
    const damaged = await damageOf(scene.repository, kept);
    if (care.isSound !== false) assert.deepEqual(damaged, [], `${where}: after it`);
    await run().catch((error: unknown) => assert.fail(`${where}: the next run: ${String(error)}`));
    assert.deepEqual(await damageOf(scene.repository, kept), [], `${where}: after the next run`);
    const left = readdirSync(join(scene.place, "snapshots"));
    assert.ok(
      kept.every((id) => left.includes(id)),
      where,
    );
    if (only) assert.equal(left.length, kept.length, where);
    assert.deepEqual(readdirSync(join(scene.place, "locks")), [], where);
  }
}

async function damageOf(repository: BackupRepository, snapshots: readonly string[]): Promise<unknown[]> {
  const { problems, checked } = await repository.verify({ snapshots });
  const damage = problems.filter(({ severity, losses }) => severity === "damage" && losses.length > 0);
  return checked.digests === snapshots.length ? damage : [...damage, `${checked.digests} digests`];
}

async function threeSnapshots(t: TestContext): Promise<{ scene: BackupScene; ids: string[] }> {
  const scene = await backupScene(t, "faulty");
  const { client, repository, folder, write } = scene;
  rmSync(join(folder, "many"), { recursive: true });
  writeFileSync(join(folder, "lost"), randomBytes(50_000));
  const ids: string[] = [];
  for (let round = 0; round < 3; round++) {
    if (round === 1) rmSync(join(folder, "lost"));
    write("a.txt", `round ${round}\n`);
    write(`round-${round}`, `of round ${round}\n`.repeat(500));
    ids.push((await client.createBackup(repository, { save: true })).snapshot!.snapshot_id);
  }
  return { scene, ids };
}

function templateOf({ root, place }: BackupScene): string {
  const template = join(root, "template");
  mkdirSync(template);
  cpSync(place, template, { recursive: true });
  return template;
}

test("createBackup loses no snapshot if any storage call fails, and a repeated call succeeds", async (t) => {
  const { scene, ids } = await threeSnapshots(t);
  scene.write("later", "later\n");
  await scene.client.save();
  const run = async (): Promise<unknown> => scene.client.createBackup(scene.repository);
  await endures({ scene, template: templateOf(scene), run, kept: ids, only: false });
});

test("restore never proves a wrong state if any storage call fails, and a repeated call succeeds", async (t) => {
  const { scene, ids } = await threeSnapshots(t);
  const { repository, root, folder } = scene;
  const faulty = opened.faulty!;
  const wanted = walkDigests(folder).state;
  let targets = 0;
  const restored = async (): Promise<string> => {
    const target = join(root, `restored-${targets++}`);
    const result = await repository.restore(ids[2]!, target);
    assert.equal(result.proof === null, result.left_out.length > 0);
    return result.proof === null ? "incomplete" : walkDigests(target).state;
  };
  faulty.disarm();
  await restored();
  for (const fault of casesOf(new Map(faulty.calls))) {
    const where = `CAIRN_TEST_SEED=${SEED} ${JSON.stringify(fault)}`;
    faulty.arm(fault);
    const state = await restored().catch((error: unknown) => {
      assert.ok(error instanceof CairnError && error.code !== "internal", `${where}: ${String(error)}`);
      return "incomplete";
    });
    assert.ok(state === wanted || state === "incomplete", where);
    faulty.disarm();
    assert.equal(await restored(), wanted, where);
  }
});

test("the old or the new password opens the repository after any failed call of changePassword", async (t) => {
  const { scene } = await threeSnapshots(t);
  const { library, repository, options, place } = scene;
  const template = templateOf(scene);
  const [old] = (await repository.keys()).keys;
  const opens = async (password: string): Promise<boolean> => {
    try {
      await (await library.openRepository({ ...options, repository: `local:${place}`, password })).close();
      return true;
    } catch (error) {
      assert.ok(error instanceof CairnError && error.code === "wrong_password", String(error));
      return false;
    }
  };
  const change = async (): Promise<unknown> => repository.changePassword("another");
  const care = { scene, template, run: change, kept: [], only: false };
  const { access } = repository as OpenedRepository;
  const faults: Fault[] = [
    { operation: "save", kind: "keys", fault: "late_success" },
    { operation: "load", kind: "keys", fault: "flip" },
    { operation: "remove", kind: "keys", fault: "fail" },
    { operation: "remove", kind: "keys", fault: "late_success" },
  ];
  for (const fault of faults) {
    const where = JSON.stringify(fault);
    reset(care);
    access.keyName = old!.key_id;
    opened.faulty!.arm(fault);
    await assert.rejects(change(), (error) => error instanceof CairnError && error.code !== "internal", where);
    opened.faulty!.disarm();
    assert.ok((await opens("correct horse")) || (await opens("another")), where);
    await change();
    assert.deepEqual([await opens("another"), readdirSync(join(place, "locks"))], [true, []], where);
  }
});

test("forget with prune loses no kept snapshot if any storage call fails, and a repeated call succeeds", async (t) => {
  const { scene, ids } = await threeSnapshots(t);
  const { repository } = scene;
  const run = async (): Promise<unknown> => repository.forget({ retention: { keepLast: 2 }, prune: true });
  await endures({ scene, template: templateOf(scene), run, kept: ids.slice(1), only: true });
});

test("copyTo loses no snapshot if any call of its target fails, and a repeated call succeeds", async (t) => {
  const { scene, ids } = await threeSnapshots(t);
  const { library, client, options, root, write } = scene;
  const source = await library.initRepository({ ...options, repository: `local:${root}/source`, password: "other" });
  write("a.txt", "of the source\n");
  await client.createBackup(source, { save: true });
  const run = async (): Promise<unknown> => source.copyTo(scene.repository);
  await endures({ scene, template: templateOf(scene), run, kept: ids, only: false });
  assert.deepEqual((await source.verify()).problems, []);
  await source.close();
});

test("repairs lose no content if any storage call fails, and a repeated repair succeeds", async (t) => {
  const { scene, ids } = await threeSnapshots(t);
  const { repository, folder, place } = scene;
  const whole = templateOf(scene);
  for (const name of readdirSync(join(place, "index"))) rmSync(join(place, "index", name));
  const unindexed = `${whole}-unindexed`;
  cpSync(place, unindexed, { recursive: true });
  const index = async (): Promise<unknown> => repository.repair({ what: "index" });
  await endures({ scene, template: unindexed, run: index, kept: ids, only: true, isSound: false });
  reset({ scene, template: whole, run: index, kept: ids, only: true });
  await damageBlob(scene, (await nodeAt(repository, ids[0]!, `${folder}/lost`)).content![0]!);
  const damaged = `${whole}-damaged`;
  cpSync(place, damaged, { recursive: true });
  const packs = async (): Promise<unknown> => repository.repair({ what: "packs" });
  await endures({ scene, template: damaged, run: packs, kept: ids.slice(1), only: false });
  reset({ scene, template: damaged, run: packs, kept: ids, only: true });
  await packs();
  const lost = `${whole}-lost`;
  cpSync(place, lost, { recursive: true });
  const snapshots = async (): Promise<unknown> => repository.repairSnapshots({ forget: true });
  await endures({ scene, template: lost, run: snapshots, kept: ids.slice(1), only: false });
});

/** Each reading of an index goes wrong in turn. */
function eachIndexRead(calls: ReadonlyMap<string, number>): Fault[] {
  return Array.from({ length: calls.get("load index")! }, (_, after) => ({
    operation: "load",
    kind: "index",
    fault: "truncate",
    after,
  }));
}

test("repair of packs loses no content if any of its reads of an index file is truncated", variant, async (t) => {
  const { scene, ids } = await threeSnapshots(t);
  const { repository, folder } = scene;
  await damageBlob(scene, (await nodeAt(repository, ids[0]!, `${folder}/lost`)).content![0]!);
  const run = async (): Promise<unknown> => repository.repair({ what: "packs" });
  const template = templateOf(scene);
  await endures({ scene, template, run, kept: ids.slice(1), only: false, faultsOf: eachIndexRead });
});

test("repair of the index fails with `stale_plan` if its first read of an index file was truncated", async (t) => {
  const { scene, ids } = await threeSnapshots(t);
  const { repository, place } = scene;
  // Its last bytes say how long its header is; its blobs are all there.
  for (const name of readdirSync(join(place, "data"), { recursive: true, encoding: "utf8" })) {
    const file = join(place, "data", name);
    if (!statSync(file).isFile()) continue;
    chmodSync(file, 0o600);
    const fd = openSync(file, "r+");
    writeSync(fd, Buffer.alloc(4, 0xff), 0, 4, statSync(file).size - 4);
    closeSync(fd);
  }
  const index = readdirSync(join(place, "index"));
  const faulty = opened.faulty!;
  faulty.disarm();
  faulty.arm({ operation: "load", kind: "index", fault: "truncate" });
  await assert.rejects(repository.repair({ what: "index" }), (error: CairnError) => error.code === "stale_plan");
  faulty.disarm();
  assert.deepEqual(readdirSync(join(place, "index")), index);
  assert.equal((await repository.verify({ snapshots: ids, quick: true })).checked.snapshots, ids.length);
});
