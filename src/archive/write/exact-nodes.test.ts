import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { OwnersByName } from "./exact-nodes.ts";

const FILE = { type: "file", user: "root", group: "", uid: 0, gid: 4_000_000_000, mode: 0o4755 } as const;

test("a restore by name takes setuid from a file whose owner has another number here, and marks the file", () => {
  const owners = new OwnersByName();
  assert.deepEqual(owners.of(FILE), FILE);
  // A rootless container's root, as host 231072.
  assert.deepEqual(owners.of({ ...FILE, uid: 231_072 }), { ...FILE, mode: 0o755, withheld: true });
  assert.equal("withheld" in owners.of({ ...FILE, uid: 231_072, mode: 0o644 }), false);
  assert.equal("withheld" in owners.of({ ...FILE, type: "dir", uid: 231_072 }), false);
});

test("a user namespace records no names beside the ids outside, and knows its own names", (context) => {
  const module = JSON.stringify(new URL("../../fs/users.ts", import.meta.url).href);
  const script = `import { userHere, userName } from ${module}; console.log(userName(${process.getuid!()}) + "," + userHere(${process.getuid!()}))`;
  if (spawnSync("unshare", ["-U", "-r", "true"]).status !== 0)
    return context.skip("unshare makes no user namespace here");
  const inside = ["-U", "-r", process.execPath, "--input-type=module", "-e", script];
  const ran = spawnSync("unshare", inside, { encoding: "utf8" });
  assert.equal(ran.stdout.trim(), ",root", ran.stderr);
});
