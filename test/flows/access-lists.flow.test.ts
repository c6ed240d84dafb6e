import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairnOk, SCRATCH } from "../fixtures/command.ts";
import { heldPlace } from "../fixtures/held-place.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { cairnLibrary, newFolder } from "../fixtures/work.ts";

/** Of extended attributes by which xfs shows root a file's access list a second time. */
const SHADOW = "trusted.SGI_ACL_FILE";

function attributes(file: string): string {
  return execFileSync("getfattr", ["-d", "-m", "-", "--absolute-names", file], { encoding: "utf8" });
}

function access(file: string): string {
  return execFileSync("getfacl", ["-cnp", file], { encoding: "utf8" });
}

test("restore never writes trusted.SGI_ACL_FILE, in which xfs shows an access list a second time", (t) => {
  const xfs = loopFileSystem(t, "xfs");
  if (xfs === null) return;
  const first = path.join(xfs.root, "first");
  fs.mkdirSync(first);
  const file = path.join(first, "file");
  fs.writeFileSync(file, "content");
  execFileSync("setfacl", ["-m", "u:1000:rw", file]);
  assert.match(attributes(file), new RegExp(SHADOW));
  const saved = cairnOk(["save", first]);
  const elsewhere = path.join(SCRATCH, "not-xfs");
  cairnOk(["-C", first, "restore", "head", "--to", elsewhere]);
  assert.match(access(path.join(elsewhere, "file")), /user:1000:rw-/);
  assert.doesNotMatch(attributes(path.join(elsewhere, "file")), new RegExp(SHADOW));
  assert.equal(cairnOk(["-C", first, "status"]).data["clean"], true, JSON.stringify(saved.data));
  // What an earlier version restored has it.
  const old = newFolder();
  fs.writeFileSync(path.join(old, "file"), "content", { mode: 0o640 });
  const value = execFileSync("getfattr", ["-n", SHADOW, "-e", "hex", "--only-values", "--absolute-names", file]);
  execFileSync("setfattr", ["-n", SHADOW, "-v", `0x${value.toString("hex")}`, path.join(old, "file")]);
  cairnOk(["save", old]);
  const back = path.join(xfs.root, "back");
  cairnOk(["-C", old, "restore", "head", "--to", back]);
  assert.doesNotMatch(access(path.join(back, "file")), /user:1000/);
});

test("a restore of a subvolume and its undo keep the folder's own access list and attributes", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot" });
  if (place === null) return;
  const { client, folder } = place;
  const file = path.join(folder, "file");
  fs.writeFileSync(file, "first");
  const { save_point_id: target } = await client.save();
  fs.writeFileSync(file, "second");
  execFileSync("setfacl", ["-m", "u:4321:rwx,d:u:4321:rwx", folder]);
  execFileSync("setfattr", ["-n", "user.note", "-v", "keep", folder]);
  const own = [access(folder), attributes(folder)];
  const { method } = await client.restore({ target, method: "exchange" });
  assert.deepEqual([method, fs.readFileSync(file, "utf8")], ["entries", "first"]);
  assert.deepEqual([access(folder), attributes(folder)], own);
  await client.undo();
  assert.deepEqual([access(folder), attributes(folder), fs.readFileSync(file, "utf8")], [...own, "second"]);
  // Where the point has them too nothing is lost by an exchange.
  const { save_point_id: listed } = await client.save();
  fs.writeFileSync(file, "third");
  assert.equal((await client.restore({ target: listed, method: "exchange" })).method, "exchange");
  assert.deepEqual([access(folder), attributes(folder)], own);
});

test("restore and fork give the group no extra rights if they make a folder without its access list", async (t) => {
  const xfs = loopFileSystem(t, "xfs");
  if (xfs === null) return;
  for (const engine of ["copy", "reflink-copy"] as const) {
    const folder = path.join(xfs.root, engine);
    fs.mkdirSync(folder);
    fs.chmodSync(folder, 0o750);
    execFileSync("setfacl", ["-m", "u:4321:rwx", folder]);
    fs.writeFileSync(path.join(folder, "file"), "content");
    const listed = access(folder);
    const client = await (await cairnLibrary()).init(folder, { engineType: engine });
    const { save_point_id: target } = await client.save();
    const [to, fork] = [`${folder}-to`, `${folder}-fork`];
    await client.restore({ target, to });
    await client.fork(target, fork);
    const forked = await (await cairnLibrary()).open(fork);
    for (const each of [to, fork]) assert.equal(fs.statSync(each).mode & 0o7777, 0o750, each);
    assert.equal((await forked.status()).clean, true);
    // The list that is there keeps its mask.
    fs.writeFileSync(path.join(folder, "file"), "changed");
    const { changes } = await client.restore({ target });
    assert.deepEqual([changes?.metadata, access(folder)], [0, listed]);
    fs.chmodSync(folder, 0o700);
    assert.equal((await client.status()).changes.modified, 1);
    await client.restore({ target });
    assert.equal(access(folder), listed);
    fs.rmSync(folder, { recursive: true });
    await client.restore({ target });
    assert.equal(fs.statSync(folder).mode & 0o7777, 0o750);
    assert.equal((await client.status()).clean, true);
  }
});
