import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { cairnOk, SCRATCH } from "../fixtures/command.ts";
import {
  backup,
  filesOf,
  newRepository,
  noRestic,
  repositoryPlace,
  restic,
  type TestRepository,
  tryBackup,
} from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";
import { chosenPasses, killAt, passesOf } from "./rounds.ts";

/** Commands that take care of a repository, killed anywhere: nothing acknowledged is lost, and the next run converges. */

interface Scene {
  place: TestRepository;
  folder: string;
  /** Oldest first. */
  ids: string[];
}

/** Some snapshots of a folder that grows and changes; of the first one a large file is gone in the others. */
async function makeScene(): Promise<Scene> {
  const folder = newFolder("cared");
  const place = await newRepository("cared-for");
  fs.writeFileSync(path.join(folder, "lost"), randomBytes(200_000));
  const ids = [1, 2, 3, 4].map((round) => {
    if (round === 2) fs.rmSync(path.join(folder, "lost"));
    fs.writeFileSync(path.join(folder, "changes"), `round ${round}\n`.repeat(1000));
    fs.writeFileSync(path.join(folder, `stays-${round}`), randomBytes(10_000));
    const { data } = backup(place, "create", "-C", folder);
    return (data as { snapshot: { snapshot_id: string } }).snapshot.snapshot_id;
  });
  return { place, folder, ids };
}

const SCENE = await makeScene();

let copies = 0;

function copyOf(place: TestRepository): TestRepository {
  const location = path.join(SCRATCH, `copy-${copies++}`);
  fs.cpSync(place.location, location, { recursive: true });
  return { ...place, location, options: ["-r", location, ...place.options.slice(2)] };
}

/** All bytes are there and each snapshot's digest is proven; and no lock is left that anybody would have to take away. */
function assertSound(place: TestRepository, where: string): void {
  const { problems, checked } = backup(place, "verify").data as {
    problems: { severity: string }[];
    checked: { snapshots: number; digests: number };
  };
  const damage = problems.filter(({ severity }) => severity === "damage");
  assert.deepEqual([damage, checked.digests], [[], checked.snapshots], where);
  assert.deepEqual(filesOf(place, "locks"), [], where);
}

/** The newest snapshot is the folder as it is, and restic finds nothing wrong. */
function assertGood(place: TestRepository): void {
  const target = path.join(SCRATCH, `restored-${copies++}`);
  backup(place, "restore", "latest", "--to", target);
  assert.equal(walkDigests(target).state, walkDigests(SCENE.folder).state);
  if (noRestic === false) restic(place, "check", "--read-data");
}

interface Kills {
  on: TestRepository;
  args: (place: TestRepository) => string[];
  /** Failpoints that the command is known to pass. */
  passes: readonly string[];
  limit: number;
}

/** Kills a command on a copy of a repository at each chosen pass; `check` looks at what it left and runs the next one. */
function killed({ on, args, passes, limit }: Kills, check: (place: TestRepository, where: string) => void): void {
  const names = passesOf(args(copyOf(on)));
  for (const name of passes) assert.ok(names.includes(name), `${name} was passed: ${names.join(" ")}`);
  let last: TestRepository | null = null;
  for (const pass of chosenPasses(names, limit)) {
    last = copyOf(on);
    check(last, `killed at ${pass} (${killAt(args(last), pass)})`);
  }
  assertGood(last!);
}

test("forget with --prune and --instant, if killed, loses no snapshot that the rules keep, and a second run completes it", () => {
  const { place, ids } = SCENE;
  const args = (at: TestRepository): string[] => [
    "backup",
    "forget",
    "--keep-last",
    "2",
    "--prune",
    "--instant",
    ...at.options,
  ];
  const passes = ["remove.snapshot-removed", "sweep.index-written", "sweep.index-removed", "sweep.pack-removed"];
  killed({ on: place, args, passes, limit: 4 }, (at, where) => {
    for (const id of ids.slice(2)) assert.ok(filesOf(at, "snapshots").includes(id), where);
    assertSound(at, where);
    const { prune } = cairnOk(args(at)).data as { prune: { postponed: boolean } };
    assert.equal(prune.postponed, false, where);
    assert.deepEqual(filesOf(at, "snapshots").toSorted(), ids.slice(2).toSorted(), where);
    assert.equal((backup(at, "prune").data as { bytes_freed: number }).bytes_freed, 0, where);
    assertSound(at, where);
  });
});

test("forget with --prune, if killed at its first look, frees nothing, and a second run marks what is unneeded", () => {
  const { place, ids } = SCENE;
  const args = (at: TestRepository): string[] => ["backup", "forget", "--keep-last", "2", "--prune", ...at.options];
  const packs = filesOf(place, "data");
  const passes = ["sweep.packs-written", "sweep.index-written", "sweep.marked"];
  killed({ on: place, args, passes, limit: 4 }, (at, where) => {
    assertSound(at, where);
    const { prune } = cairnOk(args(at)).data as { prune: { marked_packs: number; bytes_freed: number } };
    assert.deepEqual([prune.marked_packs > 0, prune.bytes_freed], [true, 0], where);
    assert.deepEqual(filesOf(at, "snapshots").toSorted(), ids.slice(2).toSorted(), where);
    assert.deepEqual(new Set(packs).difference(new Set(filesOf(at, "data"))), new Set(), where);
    assertSound(at, where);
  });
});

test("a copy between repositories, if killed, leaves a sound target, and a second run copies the other snapshots", async () => {
  const { place, ids } = SCENE;
  const [, location, , password] = place.options;
  const args = (at: TestRepository): string[] => {
    const to = ["--to", at.location, "--to-password-file", at.passwordFile];
    return ["backup", "copy", "-r", location!, "--password-file", password!, ...to];
  };
  const passes = ["transfer.packs-durable", "transfer.index-written", "copy.snapshot-written"];
  killed({ on: await newRepository("target"), args, passes, limit: 4 }, (at, where) => {
    const before = filesOf(at, "snapshots").length;
    assertSound(at, where);
    const { copied, present } = cairnOk(args(at)).data as { copied: unknown[]; present: number };
    assert.deepEqual([copied.length + present, present], [ids.length, before], where);
    assert.equal(filesOf(at, "snapshots").length, ids.length, where);
    assertSound(at, where);
  });
  assert.deepEqual(filesOf(place, "locks"), [], "of the source too");
});

/** A copy whose largest pack, most of which is `lost`, has a wrong byte. */
function damagedCopy(): TestRepository {
  const place = copyOf(SCENE.place);
  const [pack] = filesOf(place, "data")
    .map((name) => path.join(place.location, "data", name))
    .toSorted((a, b) => fs.statSync(b).size - fs.statSync(a).size);
  const bytes = fs.readFileSync(pack!);
  bytes[bytes.length >> 1]! ^= 1;
  fs.chmodSync(pack!, 0o600);
  fs.writeFileSync(pack!, bytes);
  return place;
}

function repairSnapshots(at: TestRepository): string[] {
  return ["backup", "repair", "snapshots", "--forget", ...at.options];
}

/** All but the first snapshot are as they were, and of that one there is what is left. */
function assertMended(at: TestRepository, where: string): void {
  const { ids } = SCENE;
  const { repaired, intact } = cairnOk(repairSnapshots(at)).data as { repaired: { lost: unknown[] }[]; intact: number };
  assert.ok(repaired.length <= 1 && repaired.every(({ lost }) => lost.length === 1) && intact >= 3, where);
  const left = filesOf(at, "snapshots");
  assert.ok(
    ids.slice(1).every((id) => left.includes(id)),
    where,
  );
  assert.deepEqual([left.length, left.includes(ids[0]!)], [4, false], where);
  assertSound(at, where);
}

test("a repair of packs, if killed, loses no snapshot that needs no lost content, and a second run completes it", () => {
  const packs = (at: TestRepository): string[] => ["backup", "repair", "packs", ...at.options];
  const passes = ["repair.packs-written", "repair.index-written", "repair.index-removed", "repair.pack-removed"];
  killed({ on: damagedCopy(), args: packs, passes, limit: 4 }, (at, where) => {
    cairnOk(packs(at));
    assertMended(at, where);
  });
});

test("a repair of snapshots, if killed, keeps the undamaged snapshots, and a second run completes it", () => {
  const place = damagedCopy();
  backup(place, "repair", "packs");
  assert.equal(tryBackup(place, "verify").status, 6);
  const passes = [
    "rewrite-snapshots.trees-written",
    "rewrite-snapshots.manifests-written",
    "rewrite-snapshots.snapshot-written",
    "remove.snapshot-removed",
  ];
  killed({ on: place, args: repairSnapshots, passes, limit: 4 }, assertMended);
});

test("a rewrite of snapshots, if killed, leaves a sound repository, and a second run completes it", () => {
  const { place, ids } = SCENE;
  const args = (at: TestRepository): string[] => ["backup", "rewrite", "--exclude", "lost", "--forget", ...at.options];
  const passes = [
    "rewrite-snapshots.manifests-written",
    "rewrite-snapshots.snapshot-written",
    "remove.snapshot-removed",
  ];
  killed({ on: place, args, passes, limit: 4 }, (at, where) => {
    assertSound(at, where);
    cairnOk(args(at));
    const left = filesOf(at, "snapshots");
    assert.deepEqual([left.length, left.includes(ids[0]!)], [4, false], where);
    assert.deepEqual((backup(at, "find", "lost").data as { found: unknown[] }).found, [], where);
    assertSound(at, where);
  });
});

test("backup tag, if killed, leaves a sound repository, and a second run tags every snapshot", () => {
  const { place, ids } = SCENE;
  const args = (at: TestRepository): string[] => [
    "backup",
    "tag",
    "--path",
    SCENE.folder,
    "--add",
    "kept",
    ...at.options,
  ];
  const passes = ["replace.snapshot-written", "replace.snapshot-removed"];
  killed({ on: place, args, passes, limit: 6 }, (at, where) => {
    assertSound(at, where);
    cairnOk(args(at));
    const { snapshots } = backup(at, "list").data as { snapshots: { tags: string[] }[] };
    assert.deepEqual(
      snapshots.map(({ tags }) => tags),
      ids.map(() => ["kept"]),
      where,
    );
    if (noRestic !== false) return;
    const seen = JSON.parse(restic(at, "snapshots", "--tag", "kept", "--json")) as { original?: string }[];
    assert.deepEqual(
      seen.map(({ original }) => original),
      ids,
      where,
    );
  });
});

test("key add and key remove have their effect if killed after the write, and the other key still works", async () => {
  const place = await newRepository("keys");
  const other = repositoryPlace("other");
  const add = ["backup", "key", "add", ...place.options, "--new-password-file", other.passwordFile];
  const opens = (passwordFile: string): boolean =>
    tryBackup({ ...place, options: ["-r", place.location, "--password-file", passwordFile] }, "list").status === 0;
  assert.equal(killAt(add, 1), "key.written");
  assert.deepEqual([opens(place.passwordFile), opens(other.passwordFile)], [true, true]);
  const keys = backup(place, "key", "list").data["keys"] as { key_id: string; current: boolean }[];
  const added = keys.find(({ current }) => !current)!.key_id;
  assert.equal(killAt(["backup", "key", "remove", added, ...place.options], 1), "key.removed");
  assert.deepEqual([opens(place.passwordFile), opens(other.passwordFile)], [true, false]);
  assertSound(place, "after both");
});
