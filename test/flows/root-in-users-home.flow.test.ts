import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { cairn, cairnOk, type RunOptions } from "../fixtures/command.ts";
import { ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, type OrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";

/** `su` and `sudo -E`: root's command in the home of somebody else, with their repository. */

const OTHERS = /belongs? to the user \d+, who could not use files that root /;

/** A user of a user table of the test's own. */
const KEEPER = 20_001;

/** All entries below a folder with their owners, and files with size and time: a read takes a lock for a moment. */
function entriesOf(folder: string): string[] {
  return fs.readdirSync(folder, { recursive: true, encoding: "utf8" }).map((name) => {
    const found = fs.lstatSync(path.join(folder, name));
    return `${name} ${found.uid}${found.isDirectory() ? "" : ` ${found.size} ${found.mtimeMs}`}`;
  });
}

function assertUnchanged(before: readonly string[], after: readonly string[]): void {
  assert.deepEqual(
    after.filter((each) => !before.includes(each)),
    [],
  );
  assert.equal(after.length, before.length);
}

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
    const kept = path.join(home, "kept");
    fs.mkdirSync(kept);
    fs.writeFileSync(path.join(kept, "file"), "kept\n");
    spawnSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, kept]);
    cairnOk(["save", kept], asUser);
  });

  after(() => user.remove());

  test("root refuses to begin a second history of a folder that its owner keeps, and names the owner", () => {
    const home = path.join(user.place, "keepers-home");
    const folder = path.join(user.place, "of-keeper");
    const passwd = path.join(user.place, "passwd");
    for (const made of [home, folder]) {
      fs.mkdirSync(made);
      fs.chownSync(made, KEEPER, KEEPER);
    }
    fs.writeFileSync(
      passwd,
      `${fs.readFileSync("/etc/passwd", "utf8")}keeper:x:${KEEPER}:${KEEPER}::${home}:/bin/sh\n`,
    );
    const { XDG_STATE_HOME: _state, XDG_CACHE_HOME: _cache, ...rest } = asRoot.env!;
    const among = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/passwd && exec "$@"', passwd];
    const as = (own: string, ...prefix: string[]): RunOptions => ({
      ...user.optionsIn(folder),
      prefix: [...among, ...prefix],
      env: { ...rest, HOME: own, XDG_STATE_HOME: "", XDG_CACHE_HOME: "" },
    });
    cairnOk(["save", folder], as(home, "setpriv", `--reuid=${KEEPER}`, `--regid=${KEEPER}`, "--clear-groups"));
    const root = as(path.join(user.place, "root"));
    fs.mkdirSync(root.env!["HOME"]!);
    const refused = cairn(["save", folder], root);
    assert.deepEqual([refused.status, refused.error?.code], [7, "refused"], refused.stdout);
    assert.match(`${refused.error!.message} ${refused.error!.hint}`, /a workspace of keeper .*sudo -u keeper/);
    assert.match(cairn(["history", folder], root).error!.hint!, /sudo -u keeper/);
    cairnOk(["save", folder, "--allow", "nested"], root);
  });

  test("root refuses to write below a user's home, with sudo -H as the hint, and writes nothing there", () => {
    const home = path.join(user.place, "home");
    const other = path.join(user.place, "of-root");
    fs.mkdirSync(other);
    fs.writeFileSync(path.join(other, "file"), "root's\n");
    fs.mkdirSync(path.join(home, "bare"), { mode: 0o755 });
    fs.chownSync(path.join(home, "bare"), ORDINARY_USER, ORDINARY_USER);
    // Neither ~/.local nor a state directory of its own exists: nothing may be made.
    const { XDG_STATE_HOME: _state, XDG_CACHE_HOME: _cache, ...rest } = asRoot.env!;
    const bare: RunOptions = {
      cwd: other,
      env: { ...rest, HOME: path.join(home, "bare"), XDG_STATE_HOME: "", XDG_CACHE_HOME: "" },
    };
    const places = ["home", "state"].map((name) => path.join(user.place, name));
    const before = places.flatMap(entriesOf);
    for (const [words, options] of [
      [["save", other], bare],
      [["init", other], bare],
      [["save", other], asRoot],
      [["backup", "create", other, "-r", repository], asRoot],
      [["backup", "create", "-r", repository], asRoot],
      [["-C", path.join(home, "kept"), "save"], asRoot],
      [["-C", path.join(home, "kept"), "restore", "latest"], asRoot],
      [["-C", path.join(home, "kept"), "view", "latest"], asRoot],
      [["-C", path.join(home, "kept"), "agent", "install", "claude-code"], asRoot],
      [["-C", path.join(home, "kept"), "fork", "latest", path.join(user.place, "fork")], asRoot],
    ] as const) {
      const { status, error } = cairn([...words], { ...options, own: true });
      assert.deepEqual([status, error?.code], [7, "refused"], `${words.join(" ")}: ${error?.message}`);
      assert.match(error!.message, OTHERS, words.join(" "));
      assert.match(error!.hint ?? "", /sudo -H|sudo -u '#\d+'/, words.join(" "));
    }
    assertUnchanged(before, places.flatMap(entriesOf));
    assert.equal(fs.existsSync(path.join(user.place, "fork")), false);
  });

  test("root may look at a user's points and repository, and leaves nothing there", () => {
    const kept = path.join(user.place, "home/kept");
    const places = ["home", "state"].map((name) => path.join(user.place, name));
    const before = places.flatMap(entriesOf);
    for (const words of [
      ["-C", kept, "status"],
      ["-C", kept, "history"],
      ["-C", kept, "show", "latest"],
      ["-C", kept, "show", "latest:file"],
      ["-C", kept, "diff", "latest"],
      ["-C", kept, "verify"],
      ["-C", kept, "doctor"],
      ["-C", kept, "restore", "latest", "--to", path.join(user.place, "root-s-copy")],
      ["backup", "list", "-r", repository],
      ["backup", "show", "latest:file", "-r", repository],
    ])
      cairnOk(words, { ...asRoot, own: true });
    assertUnchanged(before, places.flatMap(entriesOf));
    cairnOk(["-C", kept, "save"], asUser);
  });
});
