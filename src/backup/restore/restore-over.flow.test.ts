import assert from "node:assert/strict";
import {
  chmodSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  statSync,
} from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { EACCES } from "../../fs/linux/errno.ts";
import { syscalls } from "../../fs/linux/syscalls.ts";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import type { RestoreBackupOptions, RestoreBackupResult } from "../../contract/index.ts";
import { backupScene, type BackupScene } from "../testing-far.ts";

/** Restores over a folder with something in it. */

interface Over extends BackupScene {
  target: string;
  restored(options: RestoreBackupOptions): Promise<RestoreBackupResult>;
  text(name: string): string;
}

/** A backup of a folder, and a folder beside it that is as it was, but for what a test changes. */
async function scene(t: Parameters<typeof backupScene>[0], scheme: "local" | "far" = "local"): Promise<Over> {
  const at = await backupScene(t, scheme);
  symlinkSync("a.txt", join(at.folder, "link"));
  await at.client.createBackup(at.repository, { save: true });
  const target = join(at.root, "target");
  await at.repository.restore("latest", target, { prove: false });
  return {
    ...at,
    target,
    restored: async (options) => at.repository.restore("latest", target, options),
    text: (name) => readFileSync(join(target, name), "utf8"),
  };
}

const OLD = new Date("2020-01-02T03:04:05Z");

test("restore refuses a folder that is not empty, and its hint names `--overwrite if-changed`", async (t) => {
  const { repository, target } = await scene(t);
  await assert.rejects(repository.restore("latest", target), {
    code: "already_exists",
    hint: /new or an empty folder, or give --overwrite if-changed/,
  });
  writeFileSync(join(target, "file"), "");
  await assert.rejects(repository.restore("latest", join(target, "file"), { overwrite: "always" }), {
    code: "already_exists",
  });
});

test("overwrite `never` writes only missing entries", async (t) => {
  const { target, restored, text } = await scene(t);
  writeFileSync(join(target, "a.txt"), "mine\n");
  rmSync(join(target, "many/7"));
  rmSync(join(target, "deep"), { recursive: true });
  writeFileSync(join(target, "more"), "more\n");
  const { overwritten, left_out: leftOut, proof } = await restored({ overwrite: "never" });
  const { left_first: first, ...counts } = overwritten!;
  assert.deepEqual(counts, { written: 2, left: 51, unchanged: 0 });
  assert.deepEqual([first.length, first[0]], [10, { path: "a.txt" }]);
  assert.deepEqual([leftOut, proof], [[], null]);
  assert.deepEqual([text("a.txt"), text("more"), text("deep/b.txt")], ["mine\n", "more\n", "b\n"]);
  assert.equal(text("many/7"), "file 7\n".repeat(7));
  assert.deepEqual(readdirSync(target).toSorted(), ["a.txt", "deep", "link", "many", "more"]);
});

test("overwrite `if-changed` writes only entries that differ in size, time, mode or target", async (t) => {
  const { folder, target, restored } = await scene(t);
  const before = lstatSync(join(target, "many/9")).ino;
  writeFileSync(join(target, "a.txt"), "b\n");
  utimesSync(join(target, "many/7"), OLD, OLD);
  rmSync(join(target, "link"));
  symlinkSync("other", join(target, "link"));
  const digest = walkDigests(folder).state;
  assert.equal((await restored({ overwrite: "if-changed", dryRun: true })).overwritten?.written, 3);
  assert.notEqual(walkDigests(target).state, digest);
  const { overwritten } = await restored({ overwrite: "if-changed" });
  assert.deepEqual(overwritten, { written: 3, left: 0, left_first: [], unchanged: 50 });
  assert.equal(walkDigests(target).state, digest);
  assert.equal(lstatSync(join(target, "many/9")).ino, before);
  const again = await restored({ overwrite: "if-changed", prove: true });
  assert.deepEqual(again.overwritten, { written: 0, left: 0, left_first: [], unchanged: 53 });
});

test("overwrite `always` also writes entries that are equal in size and time", async (t) => {
  const { folder, target, restored } = await scene(t, "far");
  const { mtime } = lstatSync(join(target, "a.txt"));
  writeFileSync(join(target, "a.txt"), "?\n");
  utimesSync(join(target, "a.txt"), mtime, mtime);
  const { overwritten, read_again: isRead } = await restored({ overwrite: "always", prove: true });
  assert.deepEqual([overwritten, isRead], [{ written: 53, left: 0, left_first: [], unchanged: 0 }, true]);
  assert.equal(walkDigests(target).state, walkDigests(folder).state);
});

test("restore over a folder writes only the chosen paths", async (t) => {
  const { target, restored, text } = await scene(t);
  for (const name of ["a.txt", "deep/b.txt", "many/7"]) writeFileSync(join(target, name), "mine\n");
  const { overwritten } = await restored({ overwrite: "always", paths: ["deep"], include: ["7"] });
  assert.deepEqual(overwritten, { written: 2, left: 0, left_first: [], unchanged: 0 });
  assert.deepEqual([text("a.txt"), text("deep/b.txt")], ["mine\n", "b\n"]);
});

test("restore over a folder never replaces a directory by a file or a file by a directory", async (t) => {
  const { root, target, restored, text } = await scene(t);
  rmSync(join(target, "a.txt"));
  mkdirSync(join(target, "a.txt/mine"), { recursive: true });
  rmSync(join(target, "deep"), { recursive: true });
  mkdirSync(join(root, "outside"));
  symlinkSync(join(root, "outside"), join(target, "deep"));
  rmSync(join(target, "many/7"));
  for (const overwrite of ["never", "if-changed", "always"] as const) {
    const { left_out: leftOut } = await restored({ overwrite });
    assert.deepEqual(
      leftOut.map(({ path, reason }) => [path, reason]),
      [
        ["a.txt", "keep_present"],
        ["deep", "keep_present"],
      ],
    );
  }
  assert.equal(text("many/7"), "file 7\n".repeat(7));
  assert.deepEqual([readdirSync(join(target, "a.txt")), readdirSync(join(root, "outside"))], [["mine"], []]);
});

test("restore over a folder relinks the snapshot's hard links without changing a further link of the target", async (t) => {
  const at = await backupScene(t, "local");
  linkSync(join(at.folder, "a.txt"), join(at.folder, "deep/other"));
  await at.client.createBackup(at.repository, { save: true });
  const target = join(at.root, "target");
  await at.repository.restore("latest", target, { prove: false });
  rmSync(join(target, "deep/other"));
  linkSync(join(target, "a.txt"), join(target, "beside"));
  const { overwritten } = await at.repository.restore("latest", target, { overwrite: "if-changed" });
  assert.deepEqual(overwritten, { written: 2, left: 0, left_first: [], unchanged: 51 });
  const [one, other, beside] = ["a.txt", "deep/other", "beside"].map((name) => lstatSync(join(target, name)));
  assert.deepEqual([one!.ino, one!.nlink, beside!.nlink], [other!.ino, 2, 1]);
});

test("restore over a folder sets modes and times of its subdirectories but not of the target itself", async (t) => {
  const { folder, target, restored } = await scene(t);
  utimesSync(join(target, "many"), OLD, OLD);
  const { mode } = lstatSync(target);
  await restored({ overwrite: "if-changed" });
  assert.equal(lstatSync(join(target, "many")).mtimeMs, lstatSync(join(folder, "many")).mtimeMs);
  assert.equal(lstatSync(target).mode, mode);
});

/** Calls `before` before an entry of this name is put in place; a returned error number is the answer of the rename. */
function atRename(t: TestContext, name: string, before: () => number | void): void {
  const sys = syscalls();
  const rename = sys.rename.bind(sys);
  t.mock.method(sys, "rename", (...args: Parameters<typeof rename>) => {
    const { bytes } = args[4];
    const isIt = Buffer.from(bytes.subarray(0, bytes.indexOf(0))).toString() === name;
    return (isIt ? before() : undefined) ?? rename(...args);
  });
}

test("restore over a folder lists entries that appear or change during the restore, and does not count them as written", async (t) => {
  const { target, restored, text } = await scene(t);
  rmSync(join(target, "many"), { recursive: true });
  atRename(t, "a.txt", () => {
    mkdirSync(join(target, "many"));
    writeFileSync(join(target, "deep/b.txt"), "changed now\n");
  });
  const { overwritten, left_out: leftOut } = await restored({ overwrite: "always" });
  assert.deepEqual(overwritten, { written: 2, left: 0, left_first: [], unchanged: 0 });
  assert.deepEqual(
    leftOut.map(({ path, reason, detail }) => [path, reason, detail]),
    [
      ["many", "changed_since", "another program made it during the restore, and it stays as it is"],
      ["deep/b.txt", "changed_since", "it was changed during the restore and stays as it is"],
    ],
  );
  assert.deepEqual([text("deep/b.txt"), readdirSync(join(target, "many"))], ["changed now\n", []]);
});

test("restore over a folder that fails closes the directories again that it opened for writing", async (t) => {
  const { target, restored } = await scene(t);
  for (const name of ["many", "deep"]) chmodSync(join(target, name), 0o555);
  let tries = 0;
  atRename(t, "b.txt", () => (tries++ === 0 ? EACCES : -constants.errno.ENOSPC));
  await assert.rejects(restored({ overwrite: "always" }), { code: "no_space" });
  const modes = ["many", "deep"].map((name) => lstatSync(join(target, name)).mode & 0o777);
  assert.deepEqual([tries, modes], [2, [0o555, 0o555]]);
});

test("restore over a folder succeeds if a directory vanishes after its entries were put in place", async (t) => {
  const { target, restored, text } = await scene(t);
  writeFileSync(join(target, "deep/b.txt"), "mine\n");
  atRename(t, "7", () => renameSync(join(target, "deep"), join(target, "moved")));
  const { overwritten } = await restored({ overwrite: "always", paths: ["deep/b.txt", "many/7"] });
  assert.deepEqual([overwritten, text("moved/b.txt")], [{ written: 2, left: 0, left_first: [], unchanged: 0 }, "b\n"]);
});

test("restore over a folder warns if it is a workspace, and is refused if it would overwrite the repository", async (t) => {
  const at = await scene(t);
  const warnings: string[] = [];
  at.write("a.txt", "later\n");
  await at.repository.restore("latest", at.folder, { overwrite: "always", onWarning: (text) => warnings.push(text) });
  assert.match(warnings.join(), /is a workspace, and undo cannot bring back/);
  assert.equal(readFileSync(join(at.folder, "a.txt"), "utf8"), "a\n");
  // The repository comes to lie where the snapshot has a folder.
  await at.repository.close();
  const place = join(at.target, "deep");
  rmSync(place, { recursive: true });
  renameSync(at.place, place);
  const repository = await at.library.openRepository({ ...at.options, repository: place });
  t.after(async () => repository.close());
  await assert.rejects(repository.restore("latest", at.target, { overwrite: "always" }), {
    code: "refused",
    message: /lies in the folder, and would be overwritten/,
  });
  await repository.restore("latest", at.target, { overwrite: "always", paths: ["many"] });
});

test("restore over a folder with `always` refuses to write a receipt", async (t) => {
  const { root, restored } = await scene(t);
  await assert.rejects(restored({ overwrite: "always", receipt: join(root, "receipt") }), { code: "usage" });
});

test("a plan of `overwrite` names the entries, and is done as shown or refused before anything is written", async (t) => {
  const { target, restored, text } = await scene(t);
  writeFileSync(join(target, "a.txt"), "mine\n");
  rmSync(join(target, "many/7"));
  writeFileSync(join(target, "more"), "more\n");
  const overwrite = "if-changed";
  const planOf = async (): Promise<string> => (await restored({ overwrite, dryRun: true })).plan_id!;
  const { planned_entries: entries, plan_id: plan } = await restored({ overwrite, dryRun: true });
  assert.deepEqual(
    entries!.map(({ action, path }) => `${action} ${path}`),
    ["update a.txt", "create many/7"],
  );
  const changes = [
    () => writeFileSync(join(target, "a.txt"), "other\n"),
    () => {
      const { atimeMs, mtimeMs } = statSync(join(target, "a.txt"));
      writeFileSync(join(target, "a.txt"), "OTHER\n");
      utimesSync(join(target, "a.txt"), atimeMs / 1000, mtimeMs / 1000);
    },
    () => chmodSync(join(target, "many/8"), 0o600),
    () => writeFileSync(join(target, "many/7"), "made\n"),
    () => rmSync(join(target, "many/9")),
  ];
  let shown = plan!;
  for (const change of changes) {
    change();
    const before = walkDigests(target);
    await assert.rejects(restored({ overwrite, plan: shown }), { code: "stale_plan", message: /change|write/ });
    assert.deepEqual(walkDigests(target), before);
    shown = await planOf();
  }
  await assert.rejects(restored({ overwrite: "always", plan: shown }), { code: "stale_plan" });
  writeFileSync(join(target, "more"), "unrelated\n");
  const { overwritten, plan_id: none } = await restored({ overwrite, plan: shown });
  assert.deepEqual([overwritten?.written, none, text("a.txt")], [4, null, text("a.txt")]);
  assert.notEqual(text("a.txt"), "OTHER\n");
  rmSync(target, { recursive: true });
  await assert.rejects(restored({ overwrite, plan: shown }), { code: "stale_plan" });
});
