import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { makeNode, setAttribute } from "../../src/engines/testing-edits.ts";
import { TYPE } from "../../src/fs/syscalls.ts";
import type { LeftOut } from "../../src/operations/contract.ts";
import { buildCommand, cairnOk, ROOT, type RunOptions, cairn } from "../fixtures/command.ts";
import { differencesOf, readFolder } from "../fixtures/folder-state.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { clientOf } from "../fixtures/work.ts";

/** The built command as an ordinary user, from a copy that this user can read. */

const NOBODY = 65_534;
const skip =
  process.geteuid?.() === 0 && spawnSync("setpriv", ["--version"]).error === undefined
    ? false
    : "needs root and setpriv";

describe("an ordinary user", { skip }, () => {
  let place: string;
  let folder: string;
  let options: RunOptions;

  before(() => {
    buildCommand();
    place = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-user-"));
    fs.chmodSync(place, 0o755);
    fs.cpSync(path.join(ROOT, "dist"), path.join(place, "dist"), { recursive: true });
    fs.copyFileSync(path.join(ROOT, "package.json"), path.join(place, "package.json"));
    for (const name of ["koffi", "sodium-native", "@koromix"]) {
      const from = path.join(ROOT, "node_modules", name);
      if (fs.existsSync(from))
        fs.cpSync(from, path.join(place, "node_modules", name), { recursive: true, dereference: true });
    }
    const node = path.join(place, "node");
    fs.copyFileSync(fs.realpathSync(process.execPath), node);
    fs.chmodSync(node, 0o755);
    folder = path.join(place, "work");
    for (const each of [folder, path.join(place, "state"), path.join(place, "home")]) {
      fs.mkdirSync(each);
      fs.chownSync(each, NOBODY, NOBODY);
    }
    options = {
      cwd: folder,
      prefix: ["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups", "--inh-caps=-all", "--"],
      node,
      command: path.join(place, "dist/cli.js"),
      env: { XDG_STATE_HOME: path.join(place, "state"), HOME: path.join(place, "home") },
    };
  });

  after(() => fs.rmSync(place, { recursive: true, force: true }));

  test("saves, restores and undoes what is its own, whole", () => {
    makeFirst(folder);
    spawnSync("chown", ["-R", `${NOBODY}:${NOBODY}`, folder]);
    const state = readFolder(folder);
    const first = (cairnOk(["save", folder], options).data["save_point"] as { save_point_id: string }).save_point_id;
    fs.rmSync(path.join(folder, "goes"), { recursive: true });
    fs.writeFileSync(path.join(folder, "same/updated.txt"), "changed by another user\n");
    const changed = readFolder(folder);
    cairnOk(["restore", first], options);
    // What root wrote comes back as the user's own file.
    assert.deepEqual(differencesOf(readFolder(folder), state), []);
    cairnOk(["undo"], options);
    assert.deepEqual(differencesOf(readFolder(folder), changed), []);
    cairnOk(["verify", "--all"], options);
    assert.equal(fs.statSync(path.join(place, "state/cairn/control")).mode & 0o077, 0);
  });

  test("is told what it has not the right to set, and gets the rest", async () => {
    const source = path.join(place, "owned");
    fs.mkdirSync(source);
    fs.writeFileSync(path.join(source, "plain"), "plain\n");
    fs.writeFileSync(path.join(source, "owned"), "owned by somebody else\n");
    fs.chownSync(path.join(source, "owned"), 4711, 4712);
    fs.writeFileSync(path.join(source, "trusted"), "t\n");
    setAttribute(path.join(source, "trusted"), "trusted.secret", "x");
    makeNode(path.join(source, "null"), TYPE.CHARDEV, [1, 3]);
    const client = await clientOf(source);
    await client.save();
    // The user gets the control directory as its own, as after a copy.
    const control = path.join(place, "control");
    fs.cpSync(client.controlDirectory, control, { recursive: true });
    spawnSync("chown", ["-R", `${NOBODY}:${NOBODY}`, control]);
    const to = path.join(place, "home/to");
    const done = cairn(["restore", "latest", "--to", to, "--control-dir", control, "-C", source], options);
    assert.equal(done.status, 10, done.stdout + done.stderr);
    const left = done.data["left_out"] as LeftOut[];
    for (const name of ["owned", "null"])
      assert.ok(
        left.some((entry) => entry.path === name && entry.reason === "not_permitted"),
        `${name}: ${done.stdout}`,
      );
    assert.equal(fs.readFileSync(path.join(to, "owned"), "utf8"), "owned by somebody else\n");
    assert.equal(fs.readFileSync(path.join(to, "plain"), "utf8"), "plain\n");
    assert.equal(fs.existsSync(path.join(to, "null")), false);
  });
});
