import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { makeNode, setAttribute } from "../../src/workspace/store/testing-edits.ts";
import { TYPE } from "../../src/fs/linux/syscalls.ts";
import type { LeftOut } from "../../src/contract/index.ts";
import { cairn, cairnOk, type RunOptions } from "../fixtures/command.ts";
import { differencesOf, readFolder } from "../fixtures/folder-state.ts";
import { ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, type OrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { clientOf } from "../fixtures/work.ts";

/** The built command as an ordinary user, from a copy that this user can read. */

describe("an ordinary user", { skip: whyNoOrdinaryUser() ?? false }, () => {
  let user: OrdinaryUser;
  let place: string;
  let folder: string;
  let options: RunOptions;

  before(() => {
    user = installForOrdinaryUser();
    place = user.place;
    folder = path.join(place, "work");
    fs.mkdirSync(folder);
    fs.chownSync(folder, ORDINARY_USER, ORDINARY_USER);
    options = user.optionsIn(folder);
  });

  after(() => user.remove());

  test("an ordinary user saves, restores and undoes their own folder completely", () => {
    makeFirst(folder);
    spawnSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, folder]);
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

  test("an ordinary user saves, restores and backs up a home that contains its own save points", () => {
    const home = path.join(place, "home");
    fs.writeFileSync(path.join(home, "letter"), "first\n");
    spawnSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, home]);
    const env = {
      ...user.optionsIn(home).env,
      HOME: home,
      XDG_STATE_HOME: path.join(home, ".local/state"),
      XDG_CACHE_HOME: path.join(home, ".cache"),
    };
    const run = { ...options, cwd: home, env };
    const first = cairnOk(["save", home], run);
    assert.ok(fs.existsSync(path.join(home, ".local/state/cairn/control")));
    assert.match(first.warnings.join("\n"), /^the save points lie in .*, inside the folder: /m);
    assert.match(JSON.stringify(cairnOk(["engine", "show"], run).data), /save points lie inside the folder/);
    fs.writeFileSync(path.join(home, "letter"), "second\n");
    cairnOk(["save"], run);
    for (const restore of [["restore", "head~1"], ["undo"], ["restore", "head~1", "--method", "entries"]])
      cairnOk(restore, run);
    assert.equal(fs.readFileSync(path.join(home, "letter"), "utf8"), "first\n");
    assert.equal((cairnOk(["history"], run).data["save_points"] as unknown[]).length, 2);
    assert.doesNotMatch(JSON.stringify(cairnOk(["show", "head", "--recursive"], run).data["entries"]), /cairn/);
    const repository = path.join(place, "state/home-backup");
    const password = { ...run, env: { ...env, CAIRN_PASSWORD: "x" } };
    cairnOk(["backup", "init", "-r", repository], password);
    cairnOk(["backup", "create", "-r", repository, home], password);
    cairnOk(["verify", "--all"], run);
  });

  test("root does not save among a user's points, and a user whose records belong to root is told how to own them", () => {
    const folder = path.join(place, "shared");
    fs.mkdirSync(folder);
    const asked = user.optionsIn(folder);
    // Words of a shell in the path are none in the line that root is told to run.
    const state = path.join(place, "state/it's $(id) `id`");
    const ask = { ...asked, env: { ...asked.env, XDG_STATE_HOME: state } };
    const edit = (text: string): void => {
      fs.writeFileSync(path.join(folder, "file"), text);
      spawnSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, folder]);
    };
    edit("first\n");
    cairnOk(["save", "--message", "first"], ask);
    edit("second\n");
    const root = cairn(["save", folder], { env: ask.env });
    assert.deepEqual([root.status, root.error?.code], [7, "refused"]);
    assert.match(root.error!.hint!, new RegExp(`sudo -u '#${ORDINARY_USER}'`));
    cairnOk(["save"], ask);
    // An earlier version let root write there.
    const points = fs.globSync("cairn/control/*/workspaces/*/points", { cwd: state });
    spawnSync("chown", ["-R", "0:0", ...points.map((each) => path.join(state, each))]);
    edit("third\n");
    const refused = cairn(["save"], ask);
    assert.equal(refused.error?.code, "permission");
    const [, command] = /to become their owner: sudo (find .*)$/.exec(refused.error.hint ?? "")!;
    assert.equal(spawnSync("sh", ["-c", command!]).status, 0);
    cairnOk(["save"], ask);
    assert.equal((cairnOk(["history"], ask).data["save_points"] as unknown[]).length, 3);
    cairnOk(["restore", "head~1"], ask);
    assert.equal(fs.readFileSync(path.join(folder, "file"), "utf8"), "second\n");
    assert.deepEqual(cairnOk(["verify", "--all"], ask).data["problems"], []);
  });

  test("root is refused by each command that writes to a user's store, but not by status, history, doctor and verify", () => {
    const folder = path.join(place, "looked-at");
    fs.mkdirSync(folder);
    fs.chownSync(folder, ORDINARY_USER, ORDINARY_USER);
    const ask = user.optionsIn(folder);
    cairnOk(["save"], ask);
    const run = (...args: string[]): ReturnType<typeof cairn> => cairn([...args, "-C", folder], { env: ask.env! });
    for (const looks of ["status", "history", "doctor", "verify"]) assert.equal(run(looks).status, 0, looks);
    for (const words of [
      ["save"],
      ["pin", "head"],
      ["cleanup", "policy", "--keep-last", "1"],
      ["fork", "head", path.join(place, "root's-fork")],
    ])
      assert.deepEqual([run(...words).status, run(...words).error?.code], [7, "refused"], words.join(" "));
    assert.equal(cairn(["release", folder], { env: ask.env! }).error?.code, "refused");
    assert.equal(fs.existsSync(path.join(place, "root's-fork")), false);
    cairnOk(["save"], ask);
  });

  test("save and status work in a folder beside a link named .cairn that leads into a closed folder", () => {
    const around = path.join(place, "together");
    const folder = path.join(around, "own");
    fs.mkdirSync(folder, { recursive: true });
    fs.chownSync(folder, ORDINARY_USER, ORDINARY_USER);
    fs.mkdirSync(path.join(place, "closed"), { mode: 0o700 });
    fs.symlinkSync(path.join(place, "closed/control"), path.join(around, ".cairn"));
    cairnOk(["save"], user.optionsIn(folder));
    cairnOk(["status"], user.optionsIn(folder));
  });

  test("each backup create lists the entries that the user could not read", () => {
    const source = path.join(place, "partly");
    fs.mkdirSync(source);
    fs.writeFileSync(path.join(source, "plain"), "plain\n");
    fs.writeFileSync(path.join(source, "secret"), "s\n", { mode: 0o600 });
    fs.mkdirSync(path.join(source, "private"), { mode: 0o700 });
    const passwordFile = path.join(place, "home/password");
    fs.writeFileSync(passwordFile, "secret\n", { mode: 0o644 });
    const repository = ["-r", path.join(place, "home/repository"), "--password-file", passwordFile];
    cairnOk(["backup", "init", ...repository], options);
    // A workspace with its first point, which is there the second time, and backed up with another one.
    for (const [round, more] of [[source], ["-C", source, "--no-save"], ["-C", source]].entries()) {
      if (round === 2) fs.appendFileSync(path.join(source, "plain"), "more\n");
      const done = cairn(["backup", "create", ...repository, ...more], options);
      assert.equal(done.status, 10, more.join(" "));
      const { count, left_out: leftOut } = done.data["incomplete"] as { count: number; left_out: LeftOut[] };
      assert.equal(count, 2);
      assert.deepEqual(leftOut.map((each) => each.path).toSorted(), ["private", "secret"]);
    }
    const { snapshots } = cairnOk(["backup", "list", ...repository], options).data as { snapshots: unknown[] };
    assert.equal(snapshots.length, 3);
  });

  test("save and restore list and keep thousands of entries that the user could not read", () => {
    const many = path.join(place, "many");
    const names = ["a", "b", "c"].flatMap((parent) => Array.from({ length: 600 }, (_, i) => `${parent}/${1000 + i}`));
    for (const parent of ["a", "b", "c"]) fs.mkdirSync(path.join(many, parent), { recursive: true });
    for (const name of names) fs.writeFileSync(path.join(many, name), "secret\n", { mode: 0 });
    fs.writeFileSync(path.join(many, "plain"), "as it was\n");
    const ask = user.optionsIn(many);
    const own = (): void => void spawnSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, many]);
    spawnSync("chown", [`${ORDINARY_USER}:${ORDINARY_USER}`, many, path.join(many, "plain")]);
    const done = cairn(["save"], ask);
    assert.equal(done.status, 10, done.stdout + done.stderr);
    const listed = (outcome: typeof done): string[] =>
      (outcome.data["left_out"] as LeftOut[]).filter((each) => each.reason === "unreadable").map((each) => each.path);
    assert.deepEqual(listed(done), names);
    const { head_incomplete: incomplete } = cairnOk(["status"], ask).data as { head_incomplete: { count: number } };
    assert.equal(incomplete.count, names.length);
    fs.writeFileSync(path.join(many, "plain"), "changed\n");
    // They can be read now, and the save point has none of them.
    own();
    for (const name of names) fs.chmodSync(path.join(many, name), 0o600);
    const restored = cairn(["restore", "head"], ask);
    assert.equal(restored.status, 10, restored.stdout + restored.stderr);
    assert.deepEqual(listed(restored).toSorted(), names);
    assert.equal(fs.readFileSync(path.join(many, "plain"), "utf8"), "as it was\n");
    for (const name of names) assert.equal(fs.readFileSync(path.join(many, name), "utf8"), "secret\n");
  });

  test("restore lists the owners and devices that an ordinary user may not set, and restores the rest", async () => {
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
    spawnSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, control]);
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

  describe("a snapshot that root made", () => {
    let source: string;
    let repository: string[];

    before(() => {
      source = path.join(place, "whole");
      fs.mkdirSync(path.join(source, "locked"), { recursive: true });
      for (const name of ["plain", "closed", "locked/inside"]) fs.writeFileSync(path.join(source, name), `${name}\n`);
      repository = [`-r`, path.join(place, "repository"), "--password-file", path.join(place, "password")];
      fs.writeFileSync(path.join(place, "password"), "a password\n");
      cairnOk(["backup", "init", ...repository]);
      cairnOk(["save", source]);
    });

    function backUp(): void {
      cairnOk(["backup", "create", "-C", source, ...repository]);
      spawnSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, path.join(place, "repository")]);
    }

    function assertRestored(name: string, left: readonly [string, string][]): void {
      const to = path.join(place, "home", name);
      const receipt = `${to}.receipt`;
      const done = cairn(["backup", "restore", "latest", "--to", to, "--receipt", receipt, ...repository], options);
      assert.equal(done.status, 10, done.stdout + done.stderr);
      const missing = (done.data["left_out"] as LeftOut[]).filter(({ aspects }) => aspects?.[0] !== "owner");
      assert.deepEqual(missing.map(({ path: at, reason }) => [at, reason]).toSorted(), left, done.stdout);
      assert.deepEqual([done.data["proof"], fs.existsSync(receipt)], [null, false]);
      assert.match(done.stdout, /no receipt was written/);
      assert.equal(fs.readFileSync(path.join(to, "plain"), "utf8"), "plain\n");
      const checked = cairn(["backup", "verify", "--restore-check", ...repository], options);
      assert.equal(checked.status, 0, checked.stdout + checked.stderr);
      assert.equal((checked.data["restored"] as { state_digest: null }[])[0]?.state_digest, null);
    }

    test("backup restore by an ordinary user leaves out a device and writes no receipt", () => {
      makeNode(path.join(source, "null"), TYPE.CHARDEV, [1, 3]);
      backUp();
      assertRestored("without-device", [["null", "not_permitted"]]);
      fs.rmSync(path.join(source, "null"));
    });

    test("backup restore restores nothing if the receipt cannot be written", () => {
      backUp();
      const to = path.join(place, "home/refused");
      for (const [receipt, code] of [
        [path.join(place, "password"), "usage"],
        [path.join(place, "home"), "usage"],
        [path.join(place, "receipt"), "permission"],
      ] as const) {
        const done = cairn(["backup", "restore", "latest", "--to", to, "--receipt", receipt, ...repository], options);
        assert.equal(done.error?.code, code, done.stdout);
        assert.equal(done.status, code === "usage" ? 2 : 9);
      }
      assert.equal(fs.existsSync(to), false);
    });

    test("backup restore writes no receipt if modes keep the user from reading the files again", () => {
      for (const name of ["closed", "locked"]) fs.chmodSync(path.join(source, name), 0);
      backUp();
      assertRestored("closed", [
        ["closed", "unreadable"],
        ["locked", "unreadable"],
      ]);
      assert.equal(fs.readFileSync(path.join(place, "home/closed/locked/inside"), "utf8"), "locked/inside\n");
    });
  });
});

/** Nothing on the machine names it, as in most containers. */
const NAMELESS = 54_321;

describe("a user without a name", { skip: whyNoOrdinaryUser() ?? false }, () => {
  let user: OrdinaryUser;
  before(() => (user = installForOrdinaryUser(NAMELESS)));
  after(() => user.remove());

  test("a user whose id has no name can save, restore and back up, also without HOME", () => {
    const folder = path.join(user.place, "work");
    const home = path.join(user.place, "home");
    fs.mkdirSync(folder);
    fs.writeFileSync(path.join(folder, "file"), "as it was");
    spawnSync("chown", ["-R", `${NAMELESS}:${NAMELESS}`, folder]);
    const options = user.optionsIn(folder);
    const homeless: RunOptions = { ...options, prefix: [...options.prefix!, "env", "-u", "HOME"] };
    const at = ["-r", path.join(home, "repository")];
    const env = { ...options.env, CAIRN_PASSWORD: "p", XDG_CACHE_HOME: path.join(home, "cache") };
    for (const each of [options, homeless]) {
      const run = { ...each, env };
      cairnOk(["save", folder], run);
      fs.writeFileSync(path.join(folder, "file"), "changed");
      cairnOk(["restore", "head"], run);
      assert.equal(fs.readFileSync(path.join(folder, "file"), "utf8"), "as it was");
      if (each === options) cairnOk(["backup", "init", ...at], run);
      cairnOk(["backup", "create", folder, ...at], run);
      const { snapshots } = cairnOk(["backup", "list", ...at], run).data as { snapshots: { username: string }[] };
      assert.equal(snapshots.at(-1)?.username, String(NAMELESS));
    }
    const locked = { ...options, env: { HOME: "/", XDG_STATE_HOME: "" } };
    const refused = cairn(["save", folder], locked);
    assert.match(`${refused.status} ${refused.error?.hint}`, /^9 set XDG_STATE_HOME/);
    const nowhere = cairn(["save", folder], { ...homeless, prefix: [...homeless.prefix!, "-u", "XDG_STATE_HOME"] });
    assert.match(`${nowhere.status} ${nowhere.error?.hint}`, /^2 set HOME/);
  });
});
