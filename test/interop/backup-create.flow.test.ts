import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { buildCommand, cairn, cairnOk, SCRATCH, startCairn } from "../fixtures/command.ts";
import {
  backup,
  filesOf,
  newRepository,
  noRestic,
  repositoryPlace,
  restic,
  resticRepository,
  resticSnapshots,
  tryBackup,
} from "../fixtures/repository.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { clientOf, newFolder } from "../fixtures/work.ts";

/** `cairn backup create` and real restic in one repository. */

interface Created {
  snapshot: { snapshot_id: string; tree: string; tags: string[]; save_point_id: string } | null;
  parent: string | null;
  unchanged: boolean;
  added: { data_blobs: number; tree_blobs: number; packs: number };
}

function created(outcome: { data: Record<string, unknown> }): Created {
  return outcome.data as unknown as Created;
}

test("restic checks and restores every file of a snapshot that backup create wrote", { skip: noRestic }, async () => {
  const folder = newFolder("backup");
  makeFirst(folder);
  const place = await newRepository();
  const first = created(backup(place, "create", "-C", folder));
  const wanted = walkDigests(folder).state;
  makeSecond(folder);
  const second = created(backup(place, "create", "-C", folder, "-t", "second,other"));
  assert.equal(second.parent, first.snapshot?.snapshot_id);
  restic(place, "check", "--read-data");
  const listed = resticSnapshots(place);
  assert.deepEqual(
    listed.map(({ id }) => id),
    [first.snapshot?.snapshot_id, second.snapshot?.snapshot_id],
  );
  assert.deepEqual(listed[1]?.tags, ["second", "other", `cairn:${second.snapshot?.save_point_id}`]);
  const target = path.join(SCRATCH, "restored");
  restic(place, "restore", first.snapshot!.snapshot_id, "--target", target, "--include", folder);
  assert.equal(walkDigests(path.join(target, folder)).state, wanted);
});

test("a backup of an unchanged point adds only a snapshot, and adds nothing with --skip-unchanged", async () => {
  const folder = newFolder("backup");
  makeFirst(folder);
  const place = await newRepository();
  backup(place, "create", "-C", folder);
  const before = [filesOf(place, "index").length, filesOf(place, "data").length];
  const again = created(backup(place, "create", "-C", folder));
  assert.deepEqual([again.unchanged, again.added.packs], [true, 0]);
  assert.deepEqual([filesOf(place, "index").length, filesOf(place, "data").length], before);
  assert.equal(filesOf(place, "snapshots").length, 2);
  assert.equal(created(backup(place, "create", "-C", folder, "--skip-unchanged")).snapshot, null);
  assert.equal(created(backup(place, "create", "-C", folder, "--plan")).snapshot, null);
  assert.equal(filesOf(place, "snapshots").length, 2);
  assert.deepEqual(filesOf(place, "locks"), []);
});

// Of version 1, which knows no compression; version 2 is in all the others.
{
  const version = 1;
  test(
    `a repository of version ${version} that restic made takes backups of both programs`,
    { skip: noRestic },
    async () => {
      const folder = newFolder("backup");
      makeFirst(folder);
      const place = resticRepository(version);
      restic(place, "backup", folder);
      const [theirs] = resticSnapshots(place);
      const ours = created(backup(place, "create", "-C", folder));
      assert.equal(ours.parent, theirs?.id, "the parent is restic's snapshot of the same path");
      fs.writeFileSync(path.join(folder, "more"), "more");
      restic(place, "backup", folder);
      backup(place, "create", "-C", folder);
      assert.equal((backup(place, "list").data["snapshots"] as unknown[]).length, 4);
      restic(place, "forget", "--keep-last", "1", "--prune");
      restic(place, "check", "--read-data");
      // What restic removed is found missing and comes again.
      backup(place, "create", "-C", folder);
      restic(place, "check", "--read-data");
    },
  );
}

test(
  "Cairn verifies and restores a snapshot that restic made, and verify names damaged paths in it",
  { skip: noRestic },
  () => {
    const folder = newFolder("backup");
    makeFirst(folder);
    const place = resticRepository(2);
    restic(place, "backup", folder);
    const verified = backup(place, "verify").data as { problems: unknown[]; checked: { snapshots: number } };
    assert.deepEqual([verified.problems, verified.checked.snapshots], [[], 1]);
    const target = path.join(SCRATCH, "from-restic");
    backup(place, "restore", "latest", "--to", target);
    assert.equal(walkDigests(path.join(target, folder)).state, walkDigests(folder).state);
    const [pack] = filesOf(place, "data")
      .map((name) => path.join(place.location, "data", name))
      .toSorted((a, b) => fs.statSync(b).size - fs.statSync(a).size);
    const bytes = fs.readFileSync(pack!);
    bytes[100] = bytes[100]! ^ 1;
    fs.chmodSync(pack!, 0o600);
    fs.writeFileSync(pack!, bytes);
    const damaged = tryBackup(place, "verify");
    assert.equal(damaged.status, 6);
    assert.match(JSON.stringify(damaged.data), new RegExp(path.basename(folder)));
  },
);

test("a repository on a rest server takes backups, and can be verified, restored and pruned", async (t) => {
  const folder = newFolder("backup");
  makeFirst(folder);
  const served = newFolder("served");
  const args = ["serve-repository", "--path", served, "--listen", "127.0.0.1:0", "--no-auth"];
  const server = spawn(process.execPath, [buildCommand(), ...args], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => server.kill());
  const [line] = (await once(server.stdout.setEncoding("utf8"), "data")) as [string];
  const url = /rest:http:\/\/[0-9.:]+\//.exec(line)?.[0];
  const place = repositoryPlace("far");
  const location = `${url?.replace("//", "//somebody:secret@")}one/`;
  const far = { ...place, location, options: ["-r", location, ...place.options.slice(2)] };
  const made = backup(far, "init");
  assert.doesNotMatch(made.stdout + made.stderr + tryBackup(far, "init").stdout, /secret/);
  backup(far, "create", "-C", folder);
  makeSecond(folder);
  backup(far, "create", "-C", folder);
  const { problems, checked } = backup(far, "verify").data as { problems: unknown[]; checked: { digests: number } };
  assert.deepEqual([problems, checked.digests], [[], 2]);
  const target = path.join(SCRATCH, "from-server");
  backup(far, "restore", "latest", "--to", target);
  assert.equal(walkDigests(target).state, walkDigests(folder).state);
  if (noRestic === false) restic(far, "check", "--read-data");
  backup(far, "forget", "--keep-last", "1", "--prune");
  assert.equal((backup(far, "list").data["snapshots"] as unknown[]).length, 1);
});

test("backup create takes a folder name as restic does, and saves the folder first", async () => {
  const place = await newRepository();
  const folder = newFolder("named");
  makeFirst(folder);
  const [parent, name] = [path.dirname(folder), path.basename(folder)];
  const run = (...args: string[]): Created & { save_point_id: string } =>
    cairnOk(["backup", "create", ...place.options, ...args], { cwd: parent }).data as never;
  const first = run(folder);
  assert.ok(first.snapshot !== null);
  assert.equal(run(`./${name}`, "--skip-unchanged").snapshot, null);
  assert.equal(run(name, "--skip-unchanged").save_point_id, first.save_point_id);
  const none = cairn(["backup", "create", ...place.options, "no-such-name"], { cwd: parent });
  assert.deepEqual([none.status, none.error?.code], [3, "not_found"]);
  assert.equal(fs.existsSync(path.join(parent, ".cairn")), false);
  const unsaved = newFolder("unsaved");
  const nothing = cairn(["backup", "create", ...place.options, "--no-save", "-C", unsaved]);
  assert.deepEqual([nothing.status, nothing.error?.code], [3, "not_a_workspace"]);
  const [listed] = backup(place, "list", "latest", "--path", path.relative(SCRATCH, folder)).data[
    "snapshots"
  ] as unknown[];
  assert.ok(listed !== undefined, "a relative path is one from the current folder");
});

test("two workspaces can back up into one repository at the same time", async () => {
  const place = await newRepository();
  const folders = [newFolder("backup"), newFolder("backup")];
  for (const [i, folder] of folders.entries()) {
    makeFirst(folder);
    fs.writeFileSync(path.join(folder, "own"), `own ${i}`);
  }
  const runs = folders.map((folder) => startCairn(["backup", "create", ...place.options, "-C", folder]));
  for (const run of runs) assert.equal((await run.ended).status, 0);
  assert.equal((backup(place, "list").data["snapshots"] as unknown[]).length, 2);
  if (noRestic === false) restic(place, "check", "--read-data");
});

test("each reason why a repository cannot be opened has its own exit status", async () => {
  const folder = newFolder("backup");
  await clientOf(folder);
  const place = await newRepository();
  const wrong = repositoryPlace("wrong");
  const status = (place: { location: string; passwordFile: string }): number | null =>
    tryBackup({ ...place, options: ["-r", place.location, "--password-file", place.passwordFile] }, "list").status;
  assert.equal(status({ ...place, passwordFile: wrong.passwordFile }), 9);
  assert.equal(status(wrong), 3);
  assert.equal(status({ ...place, location: "nosuch:place" }), 2);
  const again = tryBackup(place, "init");
  assert.deepEqual([again.status, again.error?.code], [4, "already_exists"]);
});
