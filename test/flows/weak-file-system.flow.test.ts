import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairnOk, SCRATCH } from "../fixtures/command.ts";
import { exfat } from "../fixtures/exfat.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { backup, repositoryPlace, tryBackup } from "../fixtures/repository.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { newFolder } from "../fixtures/work.ts";

test("backup init, create, verify and restore work with a repository on exFAT, which has no hard links", (t) => {
  const root = exfat(t);
  if (root === null) return;
  assert.throws(() => {
    fs.writeFileSync(path.join(root, "a"), "");
    fs.linkSync(path.join(root, "a"), path.join(root, "b"));
  });
  const folder = newFolder();
  makeFirst(folder);
  const location = path.join(root, "repository");
  const { passwordFile } = repositoryPlace("exfat");
  const place = { location, passwordFile, options: ["-r", location, "--password-file", passwordFile] };
  backup(place, "init");
  assert.equal(tryBackup(place, "init").error?.code, "already_exists");
  cairnOk(["save", folder]);
  backup(place, "create", "-C", folder);
  assert.deepEqual(backup(place, "verify").data["problems"], []);
  const restored = path.join(SCRATCH, "from-exfat");
  backup(place, "restore", "latest", "--to", restored);
  assertFolder(restored, readFolder(folder), "restored");
});
