import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { buildCommand, cairn } from "../fixtures/command.ts";
import { differencesOf, type FolderState, readFolder } from "../fixtures/folder-state.ts";
import { fillOddly } from "../fixtures/odd-entries.ts";
import {
  backup,
  newRepository,
  noRestic,
  resticFed,
  restic,
  resticRepository,
  type TestRepository,
  tryBackup,
} from "../fixtures/repository.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { newFolder } from "../fixtures/work.ts";

/** Folders of snapshots as archives, which GNU tar reads. */

const TAR = ["--xattrs", "--xattrs-include=*", "--same-permissions", "--same-owner", "--numeric-owner"];

/** The bytes on stdout. */
function archived(place: TestRepository, word: string): { bytes: Buffer; stderr: string } {
  const args = [buildCommand(), "backup", "show", word, "--archive", "tar", ...place.options];
  const child = spawnSync(process.execPath, args, { maxBuffer: 256 << 20, env: process.env });
  assert.equal(child.status, 0, child.stderr.toString());
  return { bytes: child.stdout, stderr: child.stderr.toString() };
}

function extracted(bytes: Uint8Array): string {
  const target = newFolder("extracted");
  execFileSync("tar", [...TAR, "-x", "-C", target], { input: bytes, stdio: ["pipe", "pipe", "inherit"] });
  return target;
}

function listed(bytes: Uint8Array): string[] {
  const names = execFileSync("tar", ["-t", "--quoting-style=escape"], { input: bytes, encoding: "utf8" });
  return names.trimEnd().split("\n").toSorted();
}

/** Without the folder itself, which no archive of it has, and sockets. */
function inTar(state: FolderState): FolderState {
  return new Map([...state].filter(([name, entry]) => name !== "" && !entry.startsWith("socket")));
}

function oddFolder(): string {
  const folder = newFolder("archived");
  makeFirst(folder);
  fillOddly(folder);
  fs.rmSync(path.join(folder, "odd/hidden"));
  fs.writeFileSync(path.join(folder, "odd", "n".repeat(100)), "a hundred bytes\n");
  fs.utimesSync(path.join(folder, "was-file"), 1, -1.5);
  return folder;
}

const isRoot = process.geteuid?.() === 0;

describe("an archive of a snapshot", { skip: isRoot ? false : "needs root" }, () => {
  test("GNU tar extracts all entries of a tar archive except sockets, with their metadata", async () => {
    const folder = oddFolder();
    const place = await newRepository("tar-of");
    backup(place, "create", folder);
    const { bytes, stderr } = archived(place, "latest");
    assert.match(stderr, /not in the archive, because tar cannot store sockets: 1 entry, for example "odd\/socket"/);
    assert.deepEqual(differencesOf(inTar(readFolder(extracted(bytes))), inTar(readFolder(folder))), []);
    // A folder comes with its own entry and its path, a file alone.
    const target = extracted(archived(place, "latest:odd").bytes);
    assert.deepEqual(fs.readdirSync(target), ["odd"]);
    const below = ([name]: [string, string]): boolean => name === "odd" || name.startsWith("odd/");
    const wanted = new Map([...inTar(readFolder(folder))].filter(below));
    wanted.delete("odd/one");
    const now = inTar(readFolder(target));
    now.delete("odd/one");
    assert.deepEqual(differencesOf(now, wanted), []);
    assert.deepEqual(listed(archived(place, "latest:same/kept.txt").bytes), ["same/kept.txt"]);
  });

  test("show --to writes a complete file or archive, or leaves the existing file unchanged", async () => {
    const folder = newFolder("archived");
    makeFirst(folder);
    const place = await newRepository("tar-into");
    backup(place, "create", folder);
    const parent = newFolder("files");
    const file = path.join(parent, "all.tar");
    const { data } = backup(place, "show", "latest", "--archive", "tar", "--to", file);
    assert.deepEqual([data["target"], data["bytes"]], [file, fs.statSync(file).size]);
    assert.deepEqual(fs.readFileSync(file), archived(place, "latest").bytes);
    backup(place, "show", "latest:goes/b", "--to", path.join(parent, "b"));
    assert.equal(fs.readFileSync(path.join(parent, "b"), "utf8"), "b\n");
    const refused = tryBackup(place, "show", "latest:goes", "--to", file);
    assert.deepEqual([refused.error?.code, fs.statSync(file).size], ["usage", data["bytes"]]);
    // One that is lost ends it.
    for (const name of fs.readdirSync(path.join(place.location, "data"), { recursive: true, encoding: "utf8" })) {
      const pack = path.join(place.location, "data", name);
      if (fs.statSync(pack).size > 500_000 || fs.statSync(pack).isDirectory()) continue;
      fs.writeFileSync(pack, Buffer.alloc(fs.statSync(pack).size));
    }
    const damaged = cairn(["backup", "show", "latest", "--archive", "tar", "--to", file, ...place.options]);
    assert.equal(damaged.status, 6);
    assert.deepEqual(fs.readdirSync(parent).toSorted(), ["all.tar", "b"]);
    assert.equal(fs.statSync(file).size, data["bytes"]);
  });

  test("a tar archive has the same names as one by restic dump", { skip: noRestic }, () => {
    const folder = oddFolder();
    const place = resticRepository(2);
    restic(place, "backup", folder);
    const theirs = resticFed(place, "", "dump", "--archive", "tar", "latest", "/");
    const { bytes } = archived(place, "latest");
    // restic leaves pipes out, too.
    const others = listed(bytes).filter((name) => !name.endsWith("/pipe"));
    assert.equal(others.join("\n") === listed(theirs).join("\n"), true, `${others.length}, ${listed(theirs).length}`);
    const [target, other] = [extracted(bytes), extracted(theirs)];
    for (const name of ["same/kept.txt", "big", "link", "odd/far", "moded/time"]) {
      const [one, two] = [target, other].map((root) => fs.lstatSync(path.join(root, folder, name)));
      assert.deepEqual([one!.mode, one!.size], [two!.mode, two!.size], name);
    }
  });
});
