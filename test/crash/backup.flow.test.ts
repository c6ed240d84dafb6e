import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { backup, filesOf, newRepository, noRestic, restic, type TestRepository } from "../fixtures/repository.ts";
import { btrfsPlace } from "../fixtures/held-place.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { newFolder } from "../fixtures/work.ts";
import { cairn, cairnOk, type Outcome } from "../fixtures/command.ts";
import { chosenPasses, killAt, passesOf, someOf, WITHOUT_RENAME_FLAGS } from "./rounds.ts";
import { variant } from "../fixtures/long.ts";

function ids(place: TestRepository): string[] {
  return (backup(place, "list").data["snapshots"] as { snapshot_id: string }[]).map(({ snapshot_id: id }) => id);
}

interface Both {
  folder: string;
  /** Another of its kind, in which a call is traced. */
  traced: string;
  limit: number;
  passed: readonly string[];
}

/** Kills saves that are backups too, and repeats each. */
async function killBoth(name: string, { folder, traced, limit, passed }: Both): Promise<void> {
  fs.writeFileSync(path.join(folder, "large"), randomBytes(20_000_000));
  const place = await newRepository(name);
  const args = (into: typeof place, from: string): string[] => ["backup", "create", ...into.options, "-C", from];
  const names = passesOf(args(await newRepository(`${name}-traced`), traced));
  for (const each of [...passed, "transfer.index-written", "backup.snapshot-written"])
    assert.ok(names.includes(each), `${each} was passed`);
  let round = 0;
  for (const pass of chosenPasses(names, limit)) {
    fs.writeFileSync(path.join(folder, "round"), randomBytes(1_000_000));
    const before = ids(place);
    const killed = killAt(args(place, folder), pass);
    const where = `killed at ${pass} (${killed})`;
    assert.deepEqual(ids(place).slice(0, before.length), before, where);
    const done = cairnOk(args(place, folder)).data as { snapshot: { snapshot_id: string } };
    assert.equal(ids(place).at(-1), done.snapshot.snapshot_id, where);
    assert.deepEqual(filesOf(place, "locks"), [], `${where}: the dead lock is gone`);
    const target = path.join(newFolder("targets"), `round-${round++}`);
    backup(place, "restore", "latest", "--to", target);
    assert.equal(walkDigests(target).state, walkDigests(folder).state, where);
  }
  backup(place, "verify");
  cairnOk(["verify", "-C", folder]);
  if (noRestic === false) restic(place, "check", "--read-data");
}

test(
  "backup create of an unsaved btrfs folder, if killed, can be repeated, and then point and snapshot are whole",
  variant,
  async (t) => {
    const [place, traced] = [await btrfsPlace(t, makeFirst), await btrfsPlace(t, makeFirst)];
    if (place === null || traced === null) return;
    const passed = ["capture.held", "save.committed", "seal.staged", "seal.committed"];
    await killBoth("held", { folder: place.folder, traced: traced.folder, limit: 5, passed });
  },
);

interface Overwritten {
  files: string[];
  /** Makes a folder as the snapshot, but for every other file, which is another one. */
  targetOf: (name: string) => string;
  args: (target: string) => string[];
  /** Fails unless each file is the old or the new one as a whole, and nothing else went; then restores again. */
  check: (target: string, where: string) => void;
}

async function overwritten(name: string): Promise<Overwritten> {
  const folder = newFolder(name);
  makeFirst(folder);
  const write = (file: string, value: number): void => {
    const open = new DatabaseSync(file);
    for (const each of ["CREATE TABLE IF NOT EXISTS t (v)", `INSERT INTO t VALUES (${value})`]) open.exec(each);
    open.close();
  };
  write(path.join(folder, "a database"), 1);
  const place = await newRepository(`${name}-repository`);
  backup(place, "create", "-C", folder);
  const wanted = walkDigests(folder).state;
  const parent = newFolder("targets");
  const pristine = path.join(parent, "pristine");
  backup(place, "restore", "latest", "--to", pristine, "--prove", "no");
  const files = filesBelow(pristine);
  const database = path.join(parent, "database");
  fs.copyFileSync(path.join(pristine, "a database"), database);
  write(database, 2);
  const older = (file: string): Buffer =>
    file === "a database" ? fs.readFileSync(database) : Buffer.from(`mine: ${file}\n`);
  const args = (target: string): string[] => [
    "backup",
    "restore",
    "latest",
    "--to",
    target,
    "--overwrite",
    "always",
    ...place.options,
  ];
  return {
    files,
    args,
    targetOf: (to) => {
      const target = path.join(parent, to);
      fs.cpSync(pristine, target, {
        recursive: true,
        verbatimSymlinks: true,
        filter: (from) => !from.endsWith("/pipe"),
      });
      for (const [i, file] of files.entries())
        if (i % 2 === 0 || file === "a database") fs.writeFileSync(path.join(target, file), older(file));
      fs.writeFileSync(path.join(target, "only mine"), "mine\n");
      return target;
    },
    check: (target, where) => {
      for (const file of files) {
        const now = fs.readFileSync(path.join(target, file));
        const is = [fs.readFileSync(path.join(pristine, file)), older(file)].some((each) => each.equals(now));
        assert.ok(is, `${file}, ${where}`);
      }
      const left = fs.readdirSync(target).filter((each) => !fs.existsSync(path.join(pristine, each)));
      assert.deepEqual(
        left.filter((each) => !each.startsWith(".cairn-partial-")),
        ["only mine"],
      );
      cairnOk(args(target));
      fs.rmSync(path.join(target, "only mine"));
      assert.equal(walkDigests(target).state, wanted, where);
    },
  };
}

test("a restore with --overwrite, if killed, leaves each file old or new, and a second run completes it", async () => {
  const { args, targetOf, check } = await overwritten("put-over");
  const names = passesOf(args(targetOf("traced")));
  for (const name of ["restore.step", "restore.database-step", "restore.displaced-removed"])
    assert.ok(names.includes(name), `${name} was passed`);
  for (const pass of chosenPasses(names, 5)) {
    const target = targetOf(`target-${pass}`);
    const killed = killAt(args(target), pass);
    check(target, `killed at ${pass} (${killed})`);
  }
});

test("a restore with --overwrite, if killed after any rename that takes no flags, leaves each file old or new", async () => {
  const { args, files, targetOf, check } = await overwritten("put-over-flags");
  const run = (target: string, rename: number): Outcome =>
    cairn(args(target), { ...WITHOUT_RENAME_FLAGS, env: { CAIRN_TEST_RENAME: `${rename}` } });
  const whole = run(targetOf("whole"), 0);
  assert.equal(whole.status, 0, whole.stderr);
  const renames = Number(/^renames (\d+)$/m.exec(whole.stderr)![1]);
  assert.ok(renames >= files.length, `${renames} renames`);
  const all = Array.from({ length: renames }, (_each, i) => i + 1);
  for (const rename of someOf(all)) {
    const target = targetOf(`target-${rename}`);
    assert.ok(run(target, rename).killed, `${rename} of ${renames}`);
    check(target, `killed after rename ${rename} of ${renames}`);
  }
});

/** Ordinary files, as paths from the folder on. */
function filesBelow(folder: string): string[] {
  const entries = fs.readdirSync(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => path.relative(folder, path.join(parentPath, name)));
}
