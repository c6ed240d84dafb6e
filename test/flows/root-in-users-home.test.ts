import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { cairn, cairnOk, type RunOptions } from "../fixtures/command.ts";
import { ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, type OrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";

/** `su` and `sudo -E`: root's command in the home of somebody else, with their repository. */

const ROOT_MADE =
  /belongs? to the user \d+, who may not use files that root writes there: .* or give the files back afterwards: (sudo find .*)$/;

describe("root in a user's home", { skip: whyNoOrdinaryUser() ?? false }, () => {
  let user: OrdinaryUser;
  let repository: string;
  let asUser: RunOptions;
  let asRoot: RunOptions;

  before(() => {
    user = installForOrdinaryUser();
    const home = path.join(user.place, "home");
    const folder = path.join(home, "work");
    fs.mkdirSync(folder);
    fs.writeFileSync(path.join(folder, "file"), "content\n");
    spawnSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, home]);
    const options = user.optionsIn(folder);
    const env = { ...options.env, XDG_CACHE_HOME: path.join(home, ".cache"), CAIRN_PASSWORD: "x" };
    asUser = { ...options, env };
    asRoot = { cwd: folder, env };
    repository = path.join(home, "repository");
    cairnOk(["backup", "init", "-r", repository], asUser);
    cairnOk(["backup", "create", folder, "-r", repository], asUser);
  });

  after(() => user.remove());

  test("root is warned before a restore with a user's repository, and the user is told how to own the files again", () => {
    const restore = ["backup", "restore", "latest", "-r", repository, "--to"];
    const { warnings } = cairnOk([...restore, path.join(user.place, "of-root")], asRoot);
    const told = warnings.filter((each) => ROOT_MADE.test(each));
    assert.equal(told.length, 1, warnings.join("\n"));
    assert.ok(told[0]!.includes(path.join(user.place, "state/cairn")), told[0]);
    cairnOk(["backup", "verify", "--restore-check", "-r", repository], asRoot);

    const own = cairnOk([...restore, path.join(user.place, "home/own")], asUser);
    assert.equal(fs.readFileSync(path.join(user.place, "home/own/file"), "utf8"), "content\n");
    const unrecorded = own.warnings.find((each) => each.startsWith("this restore could not be recorded"));
    const [, command] = /to become their owner: (sudo find .*)$/.exec(unrecorded ?? "") ?? [];
    assert.ok(command !== undefined && told[0]!.includes(command), own.warnings.join("\n"));
    const refused = cairn(["backup", "verify", "--restore-check", "-r", repository], asUser);
    assert.equal(refused.error?.code, "permission");
    assert.match(refused.error.hint ?? "", /to become their owner: sudo find /);

    for (const each of ROOT_MADE.exec(told[0]!)![1]!.split("; "))
      assert.equal(spawnSync("sh", ["-c", each.replaceAll("sudo ", "")]).status, 0);
    cairnOk(["backup", "verify", "--restore-check", "-r", repository], asUser);
    const again = cairnOk([...restore, path.join(user.place, "home/again")], asUser);
    assert.deepEqual(again.warnings, []);
  });

  test("root is warned before it adds to a user's repository, and the user is told how to own the files again", () => {
    const { warnings } = cairnOk(["backup", "create", "-r", repository], asRoot);
    const told = warnings.filter((each) => each.startsWith(repository));
    assert.equal(told.length, 1, warnings.join("\n"));
    assert.match(told[0]!, ROOT_MADE);
    const refused = cairn(["backup", "list", "-r", repository], asUser);
    assert.equal(refused.error?.code, "permission");
    const [, command] = /, run: sudo (find .*)$/.exec(refused.error.hint ?? "")!;
    assert.equal(spawnSync("sh", ["-c", command!]).status, 0);
    assert.equal((cairnOk(["backup", "list", "-r", repository], asUser).data["snapshots"] as unknown[]).length, 2);
  });
});
