import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { cairn, cairnOk, startCairn } from "../fixtures/command.ts";
import {
  backup,
  filesOf,
  newRepository,
  noRestic,
  repositoryPlace,
  restic,
  resticEnvironment,
  resticRepository,
  resticSnapshots,
  type TestRepository,
} from "../fixtures/repository.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { newFolder } from "../fixtures/work.ts";
import { variant } from "../fixtures/long.ts";

/** What restic makes is read here, however it made it; what Cairn makes is read by all of restic; and both write at once. */

function filled(): string {
  const folder = newFolder("both");
  makeFirst(folder);
  return folder;
}

/** Lists, verifies and restores the newest snapshot, whose tree has `inside` as its copy of `folder`. */
function assertRead(place: TestRepository, folder: string, inside = folder): void {
  const listed = backup(place, "list").data["snapshots"] as { snapshot_id: string }[];
  assert.equal(listed.length, resticSnapshots(place).length);
  const { problems, checked } = backup(place, "verify").data as {
    problems: unknown[];
    checked: { snapshots: number };
  };
  assert.deepEqual([problems, checked.snapshots], [[], listed.length]);
  const target = path.join(newFolder("restored"), "here");
  backup(place, "restore", "latest", "--to", target);
  assert.equal(walkDigests(path.join(target, inside)).state, walkDigests(folder).state);
}

test("Cairn lists, verifies and restores a repository of version 1", { skip: noRestic }, () => {
  const folder = filled();
  const place = resticRepository(1);
  restic(place, "backup", folder);
  assertRead(place, folder);
});

test("Cairn reads both uncompressed and compressed snapshots of restic", { skip: noRestic, ...variant }, () => {
  const folder = filled();
  const place = resticRepository(2);
  restic(place, "backup", "--compression", "off", folder);
  makeSecond(folder);
  restic(place, "backup", "--compression", "max", folder);
  assertRead(place, folder);
});

test("each key opens the repository in both programs, whichever program added the key", { skip: noRestic }, () => {
  const folder = filled();
  const place = resticRepository(2);
  const [theirs, ours] = [repositoryPlace("second-key"), repositoryPlace("third-key")];
  restic(place, "backup", folder);
  restic(place, "key", "add", "--new-password-file", theirs.passwordFile);
  backup(place, "key", "add", "--new-password-file", ours.passwordFile);
  assertRead({ ...place, options: ["-r", place.location, "--password-file", theirs.passwordFile] }, folder);
  assert.equal(resticSnapshots({ ...place, passwordFile: ours.passwordFile }).length, 1);
  assert.equal((backup(place, "key", "list").data["keys"] as unknown[]).length, 3);
});

test("Cairn reads a repository of restic with many small packs, and prune merges the packs", { skip: noRestic }, () => {
  const folder = newFolder("small");
  const place = resticRepository(2);
  for (let round = 0; round < 9; round++) {
    fs.writeFileSync(path.join(folder, `round-${round}`), `round ${round}\n`);
    restic(place, "backup", folder);
  }
  const packs = filesOf(place, "data").length;
  assert.ok(packs >= 18, `${packs} packs`);
  assertRead(place, folder);
  backup(place, "prune", "--instant");
  assert.ok(filesOf(place, "data").length < packs);
  assertRead(place, folder);
  restic(place, "check", "--read-data");
});

test("Cairn restores restic's snapshots of a relative path, of several paths and of stdin", { skip: noRestic }, () => {
  const folder = filled();
  const other = newFolder("other");
  fs.writeFileSync(path.join(other, "file"), "other\n");
  const place = resticRepository(2);
  const env = resticEnvironment(place);
  const relative = spawnSync("restic", ["backup", path.basename(folder)], { cwd: path.dirname(folder), env });
  assert.equal(relative.status, 0, relative.stderr.toString());
  assertRead(place, folder, path.basename(folder));
  restic(place, "backup", folder, other);
  assertRead(place, folder);
  const fed = spawnSync("restic", ["backup", "--stdin", "--stdin-filename", "dump.sql"], { input: "a dump\n", env });
  assert.equal(fed.status, 0, fed.stderr.toString());
  const target = path.join(newFolder("restored"), "here");
  backup(place, "restore", "latest", "--to", target);
  assert.equal(fs.readFileSync(path.join(target, "dump.sql"), "utf8"), "a dump\n");
  // One more of ours, with restic's as its parent, and all are sound.
  backup(place, "create", "-C", folder);
  assert.deepEqual(backup(place, "verify").data["problems"], []);
});

test("diff compares a snapshot of Cairn with one of restic by the folder that both contain", { skip: noRestic }, () => {
  const folder = filled();
  for (const [named, cwd] of [
    [folder, "/"],
    [path.basename(folder), path.dirname(folder)],
    [".", folder],
  ] as const) {
    const place = resticRepository(2);
    const made = spawnSync("restic", ["backup", named], { cwd, env: resticEnvironment(place) });
    assert.equal(made.status, 0, made.stderr.toString());
    const { snapshot } = backup(place, "create", folder).data as { snapshot: { snapshot_id: string } };
    const ids = (backup(place, "list").data["snapshots"] as { snapshot_id: string }[]).map(({ snapshot_id: id }) => id);
    const other = ids.find((id) => id !== snapshot.snapshot_id)!;
    assert.deepEqual(backup(place, "diff", other, snapshot.snapshot_id).data["entries"], [], named);
    fs.writeFileSync(path.join(folder, "more"), named);
    const later = backup(place, "create", "-C", folder).data as { snapshot: { snapshot_id: string } };
    const { entries } = backup(place, "diff", other, later.snapshot.snapshot_id).data as {
      entries: { path: string }[];
    };
    assert.deepEqual(
      entries.map(({ path: at }) => at),
      ["more"],
      named,
    );
    fs.rmSync(path.join(folder, "more"));
  }
  // Nothing says whether the topmost entry is the folder, or one of its name in it.
  const app = path.join(newFolder("unpacked"), "app");
  fs.mkdirSync(path.join(app, "app/src"), { recursive: true });
  const place = resticRepository(2);
  assert.equal(spawnSync("restic", ["backup", "."], { cwd: app, env: resticEnvironment(place) }).status, 0);
  backup(place, "create", app);
  const ids = (backup(place, "list").data["snapshots"] as { snapshot_id: string }[]).map(({ snapshot_id: id }) => id);
  assert.deepEqual(backup(place, "diff", ids[0]!, ids[1]!).data["entries"], []);
});

test(
  "restore keeps hard links of restic apart if two file systems use the same inode numbers",
  { skip: noRestic, ...variant },
  (t) => {
    const folder = newFolder("devices");
    const disks = ["a", "b"].map((name) => path.join(folder, name));
    t.after(() => disks.forEach((disk) => void spawnSync("umount", [disk])));
    for (const disk of disks) {
      fs.mkdirSync(disk);
      if (spawnSync("mount", ["-t", "tmpfs", "none", disk]).status !== 0) return t.skip("mounting is not allowed");
      fs.writeFileSync(path.join(disk, "file"), disk);
      fs.linkSync(path.join(disk, "file"), path.join(disk, "again"));
    }
    const [first, second] = disks.map((disk) => fs.statSync(path.join(disk, "file")));
    assert.notEqual(first!.dev, second!.dev);
    if (first!.ino !== second!.ino) return t.skip("two new file systems of this kernel do not number alike");
    const place = resticRepository(2);
    restic(place, "backup", folder);
    const target = path.join(newFolder("restored"), "here");
    const { data } = backup(place, "restore", "latest", "--to", target);
    assert.deepEqual([data["left_out"], data["read_again"]], [[], true]);
    for (const disk of disks) {
      const [one, again] = ["file", "again"].map((name) => path.join(target, disk, name));
      assert.equal(fs.readFileSync(one!, "utf8"), disk);
      assert.equal(fs.statSync(one!).ino, fs.statSync(again!).ino);
    }
  },
);

test(
  "restic finds, copies, forgets and prunes snapshots of Cairn, and Cairn goes on backing up",
  { skip: noRestic },
  async () => {
    const folder = filled();
    const place = await newRepository("ours");
    backup(place, "create", "-C", folder);
    makeSecond(folder);
    backup(place, "create", "-C", folder);
    const found = JSON.parse(restic(place, "find", "--json", "kept.txt")) as { hits: number }[];
    assert.deepEqual(
      found.map(({ hits }) => hits),
      [1, 1],
    );
    const copy = repositoryPlace("copy-of-ours");
    restic(copy, "init");
    restic(copy, "copy", "--from-repo", place.location, "--from-password-file", place.passwordFile);
    restic(copy, "check", "--read-data");
    const proven = backup(copy, "verify").data as { problems: unknown[]; checked: { digests: number } };
    assert.deepEqual([proven.problems, proven.checked.digests], [[], 2]);
    assertRestoresHere(copy, folder);
    restic(place, "backup", folder);
    restic(place, "forget", "--group-by", "", "--keep-last", "2", "--prune");
    restic(place, "check", "--read-data");
    assert.deepEqual(backup(place, "verify").data["problems"], []);
    const next = backup(place, "create", "-C", folder).data as {
      snapshot: { snapshot_id: string };
      parent: string | null;
    };
    assert.ok(next.parent !== null);
    assertRestoresHere(place, folder, next.snapshot.snapshot_id);
  },
);

function assertRestoresHere(place: TestRepository, folder: string, snapshot = "latest"): void {
  const target = path.join(newFolder("restored"), "here");
  const { proof } = backup(place, "restore", snapshot, "--to", target).data as { proof: { state_digest: string } };
  assert.equal(proof.state_digest, walkDigests(folder).state);
}

const noFuse =
  noRestic !== false
    ? noRestic
    : fs.existsSync("/dev/fuse") && spawnSync("fusermount", ["-V"]).error === undefined
      ? false
      : "FUSE is not installed";

test(
  "restic mounts a snapshot of Cairn, and every file in the mount has the saved content",
  { skip: noFuse },
  async (t) => {
    const folder = filled();
    const place = await newRepository("mounted");
    const { snapshot } = backup(place, "create", "-C", folder).data as { snapshot: { snapshot_id: string } };
    const mounted = await mount(t, place);
    if (mounted === null) return t.skip("this user may not mount");
    const root = path.join(mounted, "ids", snapshot.snapshot_id.slice(0, 8), folder);
    const files = fs.readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    assert.ok(files.length > 8);
    for (const { parentPath, name } of files) {
      const own = path.join(parentPath, name);
      assert.ok(fs.readFileSync(own).equals(fs.readFileSync(path.join(root, path.relative(folder, own)))), own);
    }
    assert.equal(fs.readlinkSync(path.join(root, "link")), "same/kept.txt");
  },
);

/** Null where nothing can be mounted; ends with the test. */
async function mount(t: TestContext, place: TestRepository): Promise<string | null> {
  const point = newFolder("mount");
  const child = spawn("restic", ["--no-lock", "mount", point], { env: resticEnvironment(place), stdio: "ignore" });
  const ended = once(child, "exit");
  t.after(async () => {
    spawnSync("fusermount", ["-u", "-z", point]);
    child.kill();
    await ended;
  });
  for (let waited = 0; waited < 20_000 && child.exitCode === null; waited += 50) {
    if (fs.existsSync(path.join(point, "ids"))) return point;
    await sleep(50);
  }
  return null;
}

/** restic in a process beside this one. */
async function startRestic(place: TestRepository, ...args: string[]): Promise<{ status: number; said: string }> {
  const child = spawn("restic", args, { env: resticEnvironment(place), stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (piece: Buffer) => (said += piece.toString()));
  const [status] = (await once(child, "close")) as [number];
  return { status, said };
}

test(
  "Cairn and restic use one repository at the same time, and neither loses an acknowledged snapshot",
  { skip: noRestic },
  async () => {
    const [ours, theirs] = [filled(), filled()];
    const place = await newRepository("shared");
    const acknowledged: string[] = [];
    for (let round = 0; round < 3; round++) {
      for (const folder of [ours, theirs])
        fs.writeFileSync(path.join(folder, `round-${round}`), Buffer.alloc(300_000, `${folder} ${round}`));
      const create = startCairn(["backup", "create", ...place.options, "-C", ours]);
      const [made, { status, said }] = await Promise.all([create.ended, startRestic(place, "backup", theirs)]);
      assert.deepEqual([made.status, status], [0, 0], said);
      acknowledged.push((made.data["snapshot"] as { snapshot_id: string }).snapshot_id);
    }
    // A prune needs the repository for itself: it is put off or refused, or the backup beside it is; neither loses anything.
    fs.writeFileSync(path.join(ours, "last"), "last\n");
    const beside = startCairn(["backup", "create", ...place.options, "-C", ours]);
    const [made, pruned] = await Promise.all([beside.ended, startRestic(place, "prune")]);
    assert.ok(made.status === 0 || made.error?.code === "busy", made.stdout);
    assert.ok(pruned.status === 0 || /locked/.test(pruned.said), pruned.said);
    if (made.status === 0) acknowledged.push((made.data["snapshot"] as { snapshot_id: string }).snapshot_id);
    fs.writeFileSync(path.join(theirs, "last"), "last\n");
    const forget = startCairn(["backup", "forget", "--keep-last", "3", "--prune", ...place.options]);
    const [forgot, saved] = await Promise.all([forget.ended, startRestic(place, "backup", theirs)]);
    assert.ok(forgot.status === 0 || forgot.error?.code === "busy", forgot.stdout);
    assert.ok(saved.status === 0 || /locked/.test(saved.said), saved.said);
    const left = resticSnapshots(place).map(({ id }) => id);
    for (const id of acknowledged.slice(-3)) assert.ok(left.includes(id), id);
    restic(place, "check", "--read-data");
    assert.deepEqual(filesOf(place, "locks"), []);
    cairnOk(["backup", "prune", ...place.options]);
    const { problems } = cairn(["backup", "verify", ...place.options]).data as { problems: unknown[] };
    assert.deepEqual(problems, []);
  },
);
