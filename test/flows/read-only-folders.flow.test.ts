import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, test, type TestContext } from "node:test";
import type { LeftOut, StatusResult } from "../../src/contract/index.ts";
import { chosenPasses, oneOf } from "../crash/rounds.ts";
import { cairn, cairnOk, type RunOptions } from "../fixtures/command.ts";
import { assertFolder, readFolder, type StateOptions } from "../fixtures/folder-state.ts";
import { ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, type OrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";

/** Folders that their owner may not write to, as module caches of package managers are, restored by this owner. */

interface Case {
  folder: string;
  /** of commands in the folder */
  options: RunOptions;
  at(...names: string[]): string;
  write(name: string, text: string): void;
}

describe("an ordinary user's read-only folders", { skip: whyNoOrdinaryUser() ?? false }, () => {
  let user: OrdinaryUser;
  let folders = 0;
  before(() => (user = installForOrdinaryUser()));
  after(() => user.remove());

  function newCase(env: Record<string, string> = {}): Case {
    const folder = path.join(user.place, `work-${folders++}`);
    const at = (...names: string[]): string => path.join(folder, ...names);
    fs.mkdirSync(folder);
    fs.chownSync(folder, ORDINARY_USER, ORDINARY_USER);
    const write = (name: string, text: string): void => {
      fs.mkdirSync(path.dirname(at(name)), { recursive: true });
      fs.writeFileSync(at(name), text);
      execFileSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, folder]);
    };
    const options = user.optionsIn(folder);
    return { folder, options: { ...options, env: { ...options.env, ...env } }, at, write };
  }

  /** A folder in which nothing may be written, in the second of two states that have points. */
  function twoStates(env?: Record<string, string>): Case & { first: string; states: ReturnType<typeof readFolder>[] } {
    const made = newCase(env);
    const { at, write, options, folder } = made;
    const lock = (): void => void execFileSync("chmod", ["-R", "a-w", folder]);
    write("mod/v1/go.mod", "module one\n");
    write("mod/v1/goes/deep/file", "goes\n");
    write("mod/v1/kind", "a file\n");
    write("mod/v1/same/file", "same\n");
    fs.chmodSync(at("mod/v1/go.mod"), 0o444);
    lock();
    const states = [readFolder(folder)];
    const first = (cairnOk(["save"], options).data["save_point"] as { save_point_id: string }).save_point_id;
    fs.rmSync(at("mod/v1/goes"), { recursive: true });
    fs.rmSync(at("mod/v1/kind"));
    write("mod/v1/kind/of/folder", "in it\n");
    write("mod/v2/go.mod", "module two\n");
    write("mod/v1/go.mod", "module one, changed\n");
    write("top", "new at the top\n");
    lock();
    states.push(readFolder(folder));
    cairnOk(["save"], options);
    return { ...made, first, states };
  }

  test("backup restore --to writes into read-only folders and restores their modes", () => {
    const { options, folder, write, at } = newCase();
    write("mod/v1/go.mod", "module one\n");
    write("mod/v1/deep/file", "deep\n");
    for (const name of ["mod/v1/deep", "mod/v1", "mod"]) fs.chmodSync(at(name), 0o500);
    const [target, repository, password] = ["target", "repository", "password"].map((name) => `${folder}-${name}`);
    for (const each of [target!, repository!]) fs.mkdirSync(each);
    fs.writeFileSync(password!, "p\n");
    fs.writeFileSync(path.join(target!, "mine"), "mine\n");
    execFileSync("chown", [`${ORDINARY_USER}`, target!, repository!, password!]);
    const to = ["-r", repository!, "--password-file", password!];
    cairnOk(["backup", "init", ...to], options);
    cairnOk(["backup", "create", ...to, "."], options);
    const state = readFolder(at("mod"));
    for (const how of ["never", "if-changed", "always"]) {
      cairnOk(["backup", "restore", "latest", ...to, "--to", target!, "--overwrite", how], options);
      assertFolder(path.join(target!, "mod"), state, how);
      // Of what is replaced next its folders are closed.
      fs.writeFileSync(path.join(target!, "mod/v1/go.mod"), "other\n");
    }
    assert.deepEqual(fs.readdirSync(target!).toSorted(), ["mine", "mod"]);
  });

  test("restore, undo and redo bring read-only folders back whole", () => {
    const { options, folder, first, states } = twoStates();
    for (const [args, state] of [
      [["restore", first], 0],
      [["undo"], 1],
      [["redo"], 0],
      [["restore", "latest"], 1],
    ] as const) {
      cairnOk(args, options);
      assertFolder(folder, states[state]!, args.join(" "));
    }
    cairnOk(["verify", "--all"], options);
  });

  /** A second file system for the control directory, so that a restore stages in the folder; null where there is none. */
  function stateElsewhere(t: TestContext): string | null {
    const elsewhere = "/dev/shm";
    if (!fs.existsSync(elsewhere) || fs.statSync(elsewhere).dev === fs.statSync(user.place).dev) return null;
    const state = fs.mkdtempSync(path.join(elsewhere, "cairn-test-"));
    fs.chownSync(state, ORDINARY_USER, ORDINARY_USER);
    t.after(() => fs.rmSync(state, { recursive: true, force: true }));
    return state;
  }

  test("a restore of read-only folders that is killed at any step leaves the old or the new modes", () =>
    killEverywhere(twoStates(), {}));

  test("a restore that stages in read-only folders and is killed at any step leaves the old or the new modes", (t) => {
    const state = stateElsewhere(t);
    if (state === null) return t.skip("there is no second file system");
    killEverywhere(twoStates({ XDG_STATE_HOME: state }), { withoutRootTime: true });
  });

  function killEverywhere({ options, folder, first }: ReturnType<typeof twoStates>, compare: StateOptions): void {
    const before = readFolder(folder, compare);
    const args = ["restore", first];
    const { failpoints } = cairn(args, { ...options, failpoint: "trace" });
    const wanted = readFolder(folder, compare);
    cairnOk(["undo"], options);
    assertFolder(folder, before, "undone, not killed", compare);
    for (const pass of chosenPasses(failpoints)) {
      const killed = cairn(args, { ...options, failpoint: `#${pass}` });
      const where = `killed at ${pass}, ${killed.failpoints.at(-1)}`;
      const status = cairnOk(["status"], options).data as unknown as StatusResult;
      if (killed.killed && status.recovered.length > 0)
        assert.deepEqual(status.recovered.at(-1)!.kept, [], `${where}: nothing was kept`);
      if (oneOf(folder, { before, wanted }, where, compare) === "before") continue;
      cairnOk(["undo"], options);
      assertFolder(folder, before, `${where}, then undone`, compare);
    }
  }

  test("a restore of paths in read-only folders keeps the folders' modes", () => {
    const { options, folder, at, first } = twoStates();
    const compare = { withoutRootTime: true };
    const was = readFolder(folder, compare);
    cairnOk(["restore", first, at("top"), at("mod/v2")], options);
    const now = readFolder(folder, compare);
    assert.equal(now.has("top") || now.has("mod/v2"), false);
    assert.equal(fs.statSync(folder).mode & 0o7777, 0o555);
    assert.equal(fs.statSync(at("mod")).mode & 0o7777, 0o555);
    cairnOk(["undo"], options);
    assertFolder(folder, was, "undone", compare);
  });

  test("restore leaves folders of another user unchanged and lists each once with the reason", () => {
    const { options, folder, at, write } = newCase();
    write("theirs/kept", "1\n");
    fs.chownSync(at("theirs"), 0, 0);
    const first = (cairnOk(["save"], options).data["save_point"] as { save_point_id: string }).save_point_id;
    write("new/theirs/inside", "2\n");
    for (const name of ["theirs", "new/theirs"]) fs.chownSync(at(name), 0, 0);
    const compare = { withoutRootTime: true };
    const now = readFolder(folder, compare);
    const done = cairn(["restore", first], options);
    assert.equal(done.status, 10);
    const left = (done.data["left_out"] as LeftOut[]).map(({ path: name, reason, detail }) => [name, reason, detail]);
    assert.deepEqual(
      left.map(([name, reason]) => [name, reason]),
      [
        ["new/theirs/inside", "not_permitted"],
        ["new/theirs", "not_permitted"],
        ["new", "not_permitted"],
      ],
      done.stdout,
    );
    assert.deepEqual([left[1]![2], left[2]![2]], ["some of its entries stay", "some of its entries stay"]);
    assertFolder(folder, now, "as it was", compare);
  });

  test("restore lists an unreadable folder once, without the entries inside", () => {
    const { options, folder, at, write } = newCase();
    write("closed/inside", "1\n");
    write("open", "1\n");
    const first = (cairnOk(["save"], options).data["save_point"] as { save_point_id: string }).save_point_id;
    write("open", "2\n");
    fs.chmodSync(at("closed"), 0);
    fs.chownSync(at("closed"), 0, 0);
    const done = cairn(["restore", first, "-C", folder], options);
    assert.equal(done.status, 10);
    const left = done.data["left_out"] as LeftOut[];
    assert.deepEqual(
      left.map(({ path: name, reason }) => [name, reason]),
      [["closed", "unreadable"]],
      done.stdout,
    );
    assert.equal(fs.readFileSync(at("open"), "utf8"), "1\n");
  });
});
