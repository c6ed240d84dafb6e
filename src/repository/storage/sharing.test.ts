import assert from "node:assert/strict";
import fs, { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { startSshServer } from "../../../test/fixtures/ssh-server.ts";
import { LocalStorage } from "./local.ts";
import { openSftpStorage } from "./sftp/sftp.ts";
import { hintOfClosed } from "./sharing.ts";
import type { Storage } from "./storage.ts";

const AB = "ab".repeat(32);
const CD = "cd".repeat(32);

/** A folder for a repository, below one of its own. */
function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "cairn-shared-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, "repo");
}

/** As `chmod -R g+rwX` leaves one, and without the folders that are made as they are needed. */
async function openToGroup(root: string, storage: Storage): Promise<void> {
  await storage.save("config", "config", Buffer.from("c"));
  assert.equal(statSync(join(root, "config")).mode & 0o777, 0o600);
  chmodSync(join(root, "config"), 0o640);
  for (const folder of ["", "data"]) chmodSync(join(root, folder), 0o2770);
  for (const folder of ["data/ab", "data/cd", "locks", "tmp"])
    rmSync(join(root, folder), { recursive: true, force: true });
}

/** The modes of files of which some came with their folder. */
async function modesOfNew(root: string, storage: Storage): Promise<Record<string, string>> {
  await storage.save("locks", AB, Buffer.from("lock"));
  for (const [name, durable] of [
    [AB, true],
    [CD, false],
  ] as const) {
    const pack = `${root}-pack`;
    writeFileSync(pack, "pack", { mode: 0o600 });
    await storage.saveFile("data", name, pack, { durable });
  }
  await storage.sync(["data"]);
  const parts = ["locks", `locks/${AB}`, "data/ab", `data/ab/${AB}`, "data/cd", `data/cd/${CD}`];
  return Object.fromEntries(parts.map((part) => [part, (statSync(join(root, part)).mode & 0o7777).toString(8)]));
}

const OPEN = {
  locks: "2770",
  [`locks/${AB}`]: "640",
  "data/ab": "2770",
  [`data/ab/${AB}`]: "640",
  "data/cd": "2770",
  [`data/cd/${CD}`]: "640",
};

test("local storage gives new files and folders to the group if the group may read config", async (t) => {
  const usual = process.umask(0o077);
  t.after(() => process.umask(usual));
  const root = folderFor(t);
  const within = { temporaryDirectory: join(root, "tmp") };
  await openToGroup(root, LocalStorage.create(root, within));
  assert.deepEqual(await modesOfNew(root, new LocalStorage(root, within)), OPEN);
  assert.equal(statSync(join(root, "tmp")).mode & 0o7777, 0o2770);
});

test("local storage can save on a file system where chmod fails", async (t) => {
  const root = folderFor(t);
  const within = { temporaryDirectory: join(root, "tmp") };
  await openToGroup(root, LocalStorage.create(root, within));
  const refusing = (): never => {
    throw Object.assign(new Error("EPERM: operation not permitted"), { code: "EPERM" });
  };
  for (const name of ["fchmodSync", "chmodSync"] as const) t.mock.method(fs, name, refusing);
  syncBuiltinESMExports();
  t.after(() => {
    t.mock.restoreAll();
    syncBuiltinESMExports();
  });
  assert.equal((await modesOfNew(root, new LocalStorage(root, within)))[`data/ab/${AB}`], "600");
});

test("local storage does not change the target of a symbolic link that replaces a new folder", async (t) => {
  const root = folderFor(t);
  const within = { temporaryDirectory: join(root, "tmp") };
  await openToGroup(root, LocalStorage.create(root, within));
  const theirs = join(root, "../theirs");
  mkdirSync(theirs, { mode: 0o700 });
  const made = fs.mkdirSync;
  t.mock.method(fs, "mkdirSync", (path: string, options: object) => {
    made(path, options);
    if (!path.endsWith("data/ab")) return;
    fs.rmdirSync(path);
    fs.symlinkSync(theirs, path);
  });
  syncBuiltinESMExports();
  t.after(() => {
    t.mock.restoreAll();
    syncBuiltinESMExports();
  });
  await assert.rejects(new LocalStorage(root, within).save("data", AB, Buffer.from("x")));
  assert.equal(statSync(theirs).mode & 0o7777, 0o700);
});

/** A repository that its group may read, opened anew on a server. */
async function sharedOver(
  t: TestContext,
  sftpArguments: readonly string[],
): Promise<{ root: string; storage: Storage } | null> {
  const server = await startSshServer({ sftpArguments });
  if ("reason" in server) {
    t.skip(server.reason);
    return null;
  }
  t.after(() => server.close());
  const root = folderFor(t);
  const rest = `//${server.user}@127.0.0.1:${server.port}/${root}`;
  const open = async (create: boolean): Promise<Storage> => {
    const storage = await openSftpStorage(rest, { create, env: server.env });
    t.after(() => storage.close());
    return storage;
  };
  await openToGroup(root, await open(true));
  return { root, storage: await open(false) };
}

test("sftp storage gives new files and folders to the group if the group may read config", async (t) => {
  const made = await sharedOver(t, ["-u", "077"]);
  if (made !== null) assert.deepEqual(await modesOfNew(made.root, made.storage), OPEN);
});

test("sftp storage can save on a server that does not allow chmod", async (t) => {
  const made = await sharedOver(t, ["-u", "022", "-P", "setstat"]);
  if (made === null) return;
  const modes = await modesOfNew(made.root, made.storage);
  assert.deepEqual([modes[`data/ab/${AB}`], modes["data/ab"]], ["640", "2700"]);
});

test("hintOfClosed returns the chown or chmod command that gives this user access", (t) => {
  const root = folderFor(t);
  assert.equal(hintOfClosed(root), undefined);
  mkdirSync(root);
  writeFileSync(join(root, "config"), "c", { mode: 0o600 });
  const id = process.geteuid!();
  assert.ok(hintOfClosed(root)!.endsWith(`: sudo find ${root} ! -user ${id} -execdir chown -h ${id} {} +`));
  chmodSync(join(root, "config"), 0o660);
  assert.ok(hintOfClosed(root)!.endsWith(` && sudo chmod -R g+rwX ${root}`));
});

test(
  "local storage gives new files and folders the group of config if the parent folder is not setgid",
  { skip: process.geteuid?.() === 0 ? false : "only root is in any group" },
  async (t) => {
    const root = folderFor(t);
    const storage = LocalStorage.create(root, { temporaryDirectory: join(root, "tmp") });
    await openToGroup(root, storage);
    const group = process.getegid!() + 4321;
    fs.chownSync(join(root, "config"), -1, group);
    for (const folder of ["", "data"]) chmodSync(join(root, folder), 0o770);
    await modesOfNew(root, new LocalStorage(root, { temporaryDirectory: join(root, "tmp") }));
    const made = ["tmp", "locks", `locks/${AB}`, "data/ab", `data/ab/${AB}`, `data/cd/${CD}`];
    assert.deepEqual(new Set(made.map((part) => statSync(join(root, part)).gid)), new Set([group]));
  },
);
