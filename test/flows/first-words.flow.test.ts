import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { buildCommand, cairn, cairnOk } from "../fixtures/command.ts";
import { newFolder } from "../fixtures/work.ts";

/** What commands say to whoever meets them first. */

test("save, tag and run split a tag at commas", () => {
  const folder = newFolder();
  const tags = (): string[] => {
    const { save_points } = cairnOk(["-C", folder, "history", "--json"]).data as { save_points: { tags: string[] }[] };
    return save_points[0]!.tags;
  };
  cairnOk(["save", folder, "-t", "a,b", "-t", "c"]);
  assert.deepEqual(tags(), ["a", "b", "c"]);
  cairnOk(["-C", folder, "tag", "head", "d,e", "--remove", "a,c"]);
  assert.deepEqual(tags(), ["b", "d", "e"]);
  cairnOk(["-C", folder, "run", "-t", "x,y", "--", "true"]);
  assert.deepEqual(tags(), ["x", "y"]);
});

/** What a command says to a person. */
function said(args: readonly string[], cwd: string): string {
  const { stdout, stderr } = spawnSync(process.execPath, [buildCommand(), ...args], { cwd, encoding: "utf8" });
  return stderr + stdout.replaceAll(/\b[0-9a-f]{8}\b/g, "ID");
}

test("pin and unpin say if they change nothing", () => {
  const folder = newFolder();
  cairnOk(["save", folder]);
  assert.equal(said(["unpin", "head"], folder), "ID was not pinned\n");
  assert.match(said(["pin", "head"], folder), /^pinned ID; to take this back/);
  assert.equal(said(["pin", "head"], folder), "ID was pinned already\n");
});

test("save explains a quoted tilde, reports an empty folder, and prints the full path of a relative one", () => {
  const folder = newFolder();
  const quoted = cairn(["save", "~/x"], { cwd: folder });
  assert.deepEqual([quoted.status, quoted.error?.code], [3, "not_found"]);
  assert.match(quoted.error?.hint ?? "", /^write ~ without quotes/);
  fs.mkdirSync(path.join(folder, "empty"));
  const saved = said(["save", "empty"], folder);
  assert.match(saved, /the folder is empty · stored /);
  assert.ok(saved.includes(`come back to it: cairn -C ${path.join(folder, "empty")} restore ID`), saved);
});

test("save of a link names the folder in the command that comes back, because the link may lead elsewhere later", () => {
  const folder = newFolder();
  const alias = `${folder}-alias`;
  fs.symlinkSync(folder, alias);
  assert.ok(said(["save", alias], path.dirname(folder)).includes(`cairn -C ${folder} restore ID`));
  assert.ok(said(["-C", alias, "save"], path.dirname(folder)).includes(`cairn -C ${folder} restore ID`));
});
