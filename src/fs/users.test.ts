import assert from "node:assert/strict";
import { test } from "node:test";
import { spawnSync } from "node:child_process";
import { userInfo } from "node:os";
import { absolutePath, groupName, homeDirectories, homeDirectory, parseNames, userName } from "./users.ts";

test("userName and groupName return the names of root's uid and gid", () => {
  assert.equal(userName(0), "root");
  assert.notEqual(groupName(0), "");
  assert.ok(homeDirectories().includes("/root"));
});

test("userName returns an empty string for an unknown uid", () => {
  assert.equal(userName(4_000_000_000), "");
});

test("parseNames skips invalid lines of a passwd file, and keeps the first name of each id", () => {
  const names = parseNames("# x:y:1:\na:x:5:\nb:x:5:\na:x:6:\nbad\n+::::::\nc:x:-1:\n");
  assert.deepEqual(
    [...names],
    [
      [5, "a"],
      [6, "a"],
    ],
  );
});

test("homeDirectory ignores an empty or relative HOME", (t) => {
  const before = process.env["HOME"];
  t.after(() => {
    if (before === undefined) delete process.env["HOME"];
    else process.env["HOME"] = before;
  });
  for (const home of ["", "relative", "./relative"]) {
    process.env["HOME"] = home;
    assert.equal(homeDirectory(), userInfo().homedir, home);
    assert.equal(homeDirectory({ HOME: "/asked" }), "/asked");
    assert.equal(absolutePath(process.env, "HOME"), null);
  }
});

test("root of a user namespace is not root of the machine, and never asks for the records of root's daemon", (context) => {
  const prefix = process.getuid!() === 0 ? ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"] : [];
  const inNamespace = (...words: string[]): ReturnType<typeof spawnSync> => {
    const [command, ...rest] = [...prefix, "unshare", "-U", "-r", ...words];
    return spawnSync(command!, rest, { encoding: "utf8" });
  };
  if (inNamespace(process.execPath, "-e", "").status !== 0) return context.skip("no user namespace for this user here");
  const module = JSON.stringify(new URL("../workspace/place/daemon-marks.ts", import.meta.url).href);
  const script = `import { stateOfOtherDaemon } from ${module}; console.log(process.getuid(), stateOfOtherDaemon())`;
  const ran = inNamespace(process.execPath, "--input-type=module", "-e", script);
  assert.equal(String(ran.stdout).trim(), "0 null", String(ran.stderr));
});
