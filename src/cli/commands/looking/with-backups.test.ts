import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { RestoreBackupResult, VerifyBackupResult } from "../../../contract/index.ts";
import { backupScene, type BackupScene } from "../../../backup/testing-far.ts";
import type { FakeLibrary } from "../../testing-fake-library.ts";
import { type Ran, runFake } from "../../testing-run.ts";

/** Commands that look at points look at backups, too, in the kept repository or the one of `-r`. */

type Command = (...words: string[]) => Promise<Ran>;

/** A backup of the folder, which has changed since. */
async function backedUp(t: TestContext): Promise<{ scene: BackupScene; cairn: Command }> {
  const scene = await backupScene(t, "local");
  const { client, repository, library, folder, root, options, write } = scene;
  await client.createBackup(repository, { save: true });
  const passwordFile = join(root, "password");
  writeFileSync(passwordFile, options.password as string);
  await client.setBackupRepository({ repository: options.repository, passwordFile });
  write("a.txt", "changed\n");
  write("deep/new.txt", "new\n");
  await client.save();
  const fake = { library } as unknown as FakeLibrary;
  return { scene, cairn: async (...words) => runFake(words, { fake, cwd: join(folder, "deep") }) };
}

test("diff latest backup:latest prints what the last backup lacks, with the lines of files", async (t) => {
  const { scene, cairn } = await backedUp(t);
  const lacks = await cairn("diff", "backup:latest", "latest");
  assert.equal(lacks.status, 0, lacks.stderr);
  assert.match(lacks.stdout, /a\.txt[\s\S]*-a\n\+changed[\s\S]*new\.txt[\s\S]*\+new/);
  assert.match(lacks.stderr, /using the repository/);
  const here = await cairn("diff", "backup:latest:deep", "latest:.", "--stat");
  assert.match(here.stdout, /new\.txt/);
  assert.doesNotMatch(here.stdout, /a\.txt/);
  const named = await cairn(
    "diff",
    "latest",
    "backup:latest",
    "--json",
    "-r",
    scene.place,
    "--password-file",
    join(scene.root, "password"),
  );
  const { data } = JSON.parse(named.stdout) as { data: { to: string; entries: { path: string; change: string }[] } };
  assert.match(data.to, /^backup:[0-9a-f]{64}$/);
  assert.deepEqual(
    data.entries.filter(({ change }) => change === "removed").map(({ path }) => path),
    ["deep/new.txt"],
  );
  const text = await cairn("show", "backup:latest:a.txt");
  assert.equal(text.stdout, "a\n");
  assert.equal((await cairn("show", "backup:latest:../a.txt")).stdout, "a\n", "from the current folder");
  scene.write("deep/a.txt", "deep\n");
  await scene.client.createBackup(scene.repository, { save: true });
  assert.equal((await cairn("show", "backup:latest:./a.txt")).stdout, "deep\n");
  assert.equal((await cairn("show", "backup:latest:a.txt")).stdout, "changed\n");
  const listed = await cairn("show", "backup:latest:./", "--json");
  assert.match(listed.stdout, /"snapshot_id"/);
});

test("an export of a backup of another folder names that folder and the snapshot, not this workspace", async (t) => {
  const { scene } = await backedUp(t);
  const { client, library, repository, root } = scene;
  const other = join(root, "other");
  mkdirSync(other);
  writeFileSync(join(other, "theirs"), "theirs");
  const { snapshot } = await (await library.init(other)).createBackup(repository, { save: true, tags: ["kept"] });
  const envelope = async (operand: string, to: string): Promise<Record<string, unknown>> => {
    await client.exportPoint(operand, join(root, to));
    const text = readFileSync(join(root, to, "snapshot.json"), "utf8");
    return (JSON.parse(text) as { config: Record<string, unknown> }).config;
  };
  const theirs = await envelope(`backup:${snapshot!.snapshot_id}`, "theirs");
  assert.deepEqual([theirs["id"], theirs["name"], theirs["tags"]], [snapshot!.snapshot_id, "other", ["kept"]]);
  const { hostname, paths } = theirs["cause"] as { hostname: string; paths: string[] };
  assert.deepEqual([hostname, paths], [snapshot!.hostname, [other]]);
  const own = await envelope("backup:latest", "own");
  assert.deepEqual([own["id"], own["name"]], [client.workspace.id, client.workspace.name]);
});

test("find --in all searches the backups of the folder for the same part of a name", async (t) => {
  const { cairn } = await backedUp(t);
  const all = await cairn("find", "b.t", "--in", "all", "--json");
  const { data } = JSON.parse(all.stdout) as {
    data: { found: { path: string }[]; backups: { found: { path: string }[] } };
  };
  assert.deepEqual(
    data.found.map(({ path }) => path),
    ["deep/b.txt"],
  );
  assert.deepEqual(
    data.backups.found.map(({ path }) => path.endsWith("/deep/b.txt")),
    [true],
  );
  assert.equal((await cairn("find", "b.t", "--in", "moon")).status, 2);
  const backups = await cairn("find", "b.t", "--in", "backups");
  assert.match(backups.stdout, /deep\/b\.txt/);
});

test("why --in lists the backups of the folder that changed a file, alone or beside save points", async (t) => {
  const { scene, cairn } = await backedUp(t);
  await scene.client.createBackup(scene.repository);
  const backups = await cairn("why", "../a.txt", "--in", "backups");
  assert.equal(backups.status, 0, backups.stderr);
  assert.match(backups.stdout, /modified 2 B → 8 B[\s\S]*of save point[\s\S]*added 2 B/);
  assert.doesNotMatch(backups.stdout, /in backups/);
  const all = await cairn("why", "../a.txt", "--in", "all");
  assert.match(all.stdout, /modified[\s\S]*added[\s\S]*\nin backups\n[\s\S]*modified[\s\S]*added/);
  assert.match((await cairn("why", "nothing", "--in", "backups")).stdout, /no backup of this folder has deep\/nothing/);
});

test("restore backup:SNAPSHOT restores elsewhere with a proof, and in place, as backup restore does", async (t) => {
  const { scene, cairn } = await backedUp(t);
  const to = (name: string): string => join(scene.root, name);
  const whole = await cairn("restore", "backup:latest", "--to", to("whole"), "--json");
  const { data } = JSON.parse(whole.stdout) as { data: RestoreBackupResult };
  assert.equal(data.proof?.state_digest.length, 64);
  assert.equal(readFileSync(join(to("whole"), "a.txt"), "utf8"), "a\n");
  assert.equal((await cairn("restore", "backup:latest", "../a.txt", "--to", to("path"))).status, 0);
  assert.deepEqual(readdirSync(to("path")), ["a.txt"]);
  assert.equal((await cairn("restore", "backup:latest:./", "b.txt", "--to", to("folder"))).status, 0);
  assert.deepEqual(readdirSync(to("folder")), ["b.txt"], "paths begin at the operand's folder");
  assert.equal((await cairn("restore", "backup:latest", "../a.txt")).status, 0);
  assert.equal(readFileSync(join(scene.folder, "a.txt"), "utf8"), "a\n");
  assert.equal(readFileSync(join(scene.folder, "deep/new.txt"), "utf8"), "new\n", "the other paths stay");
});

test("a repository is refused where no operand is a backup, and a copy inside the workspace", async (t) => {
  const { scene, cairn } = await backedUp(t);
  for (const words of [
    ["verify"],
    ["show", "latest"],
    ["diff"],
    ["restore", "latest", "--to", join(scene.root, "x")],
  ]) {
    const { status, stderr } = await cairn(...words, "-r", "/nosuch");

    assert.deepEqual([status, /--repo works with backup:SNAPSHOT only/.test(stderr)], [2, true], words.join(" "));
  }
  for (const target of ["backup:latest", "latest"]) {
    const inside = await cairn("restore", target, "--to", join(scene.folder, "deep/new"));
    assert.deepEqual([inside.status, /inside the workspace/.test(inside.stderr)], [7, true], target);
    const empty = await cairn("restore", target, "--to", "");
    assert.deepEqual([empty.status, /--to needs a folder/.test(empty.stderr)], [2, true], target);
    const kept = await cairn("restore", target, "--to", join(scene.root, "x"), "--keep-present");
    assert.deepEqual([kept.status, /--keep-present and --to exclude each other/.test(kept.stderr)], [2, true], target);
  }
});

test("restore in place warns of a backup of another folder, and restores no relative path of another program's", async (t) => {
  const { scene, cairn } = await backedUp(t);
  const other = join(scene.root, "other");
  mkdirSync(other);
  writeFileSync(join(other, "x"), "x");
  const client = await scene.library.init(other);
  const { snapshot } = await client.createBackup(scene.repository, { save: true });
  const plan = await cairn("restore", `backup:${snapshot!.snapshot_id}`, "--plan");
  assert.match(plan.stderr, /is of .*other: .* is made equal to it/);
  const { snapshot: foreign } = await scene.repository.createFromPaths([scene.folder]);
  const to = join(scene.root, "to");
  const refused = await cairn("restore", `backup:${foreign!.snapshot_id}:./`, "b.txt", "--to", to);
  assert.equal(refused.status, 2);
  const hint = new RegExp(`name the path as the snapshot has it: backup:[0-9a-f]{8}:${scene.folder}/PATH`);
  assert.match(refused.stderr, hint);
  const whole = await cairn("restore", `backup:${foreign!.snapshot_id}:${scene.folder}/deep`, "--to", to);
  assert.equal(whole.status, 0, whole.stderr);
  assert.equal(readFileSync(join(to, "b.txt"), "utf8"), "b\n");
});

test("restore of a backup refuses options of save points, and a folder of the backup in place", async (t) => {
  const { scene, cairn } = await backedUp(t);
  const refused = async (...words: string[]): Promise<string> => {
    const { status, stderr } = await cairn("restore", ...words);
    assert.equal(status, 2, stderr);
    return stderr;
  };
  const to = ["--to", join(scene.root, "to")];
  assert.match(await refused("backup:latest:deep"), /with --to DIR\n.* cairn restore backup:latest \.$/m);
  assert.match(await refused("backup:latest", "--method", "entries"), /--method works with save points only/);
  assert.match(await refused("backup:latest", "--keep-present", ...to), /--keep-present and --to exclude each other/);
  assert.match(await refused("backup:", ...to), /names no snapshot/);
  assert.match(await refused("backup:latest:/etc", ...to), /not below/);
});

test("restore POINT:PATH --to restores the content of a folder, from the current folder after ./", async (t) => {
  const { scene, cairn } = await backedUp(t);
  const to = (name: string): string => join(scene.root, name);
  assert.equal((await cairn("restore", "head:deep", "--to", to("deep"))).status, 0);
  assert.deepEqual(readdirSync(to("deep")).toSorted(), ["b.txt", "new.txt"]);
  assert.equal((await cairn("restore", "head:./", "new.txt", "--to", to("new"))).status, 0);
  assert.deepEqual(readdirSync(to("new")), ["new.txt"]);
  const inPlace = await cairn("restore", "head:deep/b.txt");
  assert.equal(inPlace.status, 2);
  assert.match(inPlace.stderr, /in place, name the path as an argument: cairn restore head b\.txt/);
  assert.match((await cairn("restore", "nothing:b.txt")).stderr, /not a save point/);
  for (const option of [["--plan"], ["--apply", "1a2b"]])
    assert.equal((await cairn("restore", "head", "--to", to("planned"), ...option)).status, 2);
});

test("show and restore name another workspace by a folder that is relative to the current one", async (t) => {
  const { scene, cairn } = await backedUp(t);
  await scene.client.fork("head", join(scene.root, "fork"));
  const plan = await cairn("restore", "../../fork:latest", "--plan");
  assert.equal(plan.status, 0, plan.stderr);
  assert.equal((await cairn("show", "../../fork:latest:a.txt")).stdout, "changed\n");
  assert.match((await cairn("show", "../../fork:latest:deep")).stdout, /b\.txt[\s\S]*new\.txt/);
});

test("verify backup:SNAPSHOT reads all data of one backup of this folder, as backup verify does", async (t) => {
  const { scene, cairn } = await backedUp(t);
  const verified = await cairn("verify", "backup:latest", "--json");
  const { data } = JSON.parse(verified.stdout) as { data: VerifyBackupResult };
  assert.deepEqual([data.checked.snapshots, data.checked.digests, data.read_data], [1, 1, true]);
  await scene.client.createBackup(scene.repository, { save: true });
  assert.match((await cairn("verify", "backup:latest")).stdout, /no damage found {2}1 snapshot,/);
  assert.equal((await cairn("verify", "backup:latest:deep")).status, 2);
  assert.equal((await cairn("verify", "backup:none")).status, 3);
});
