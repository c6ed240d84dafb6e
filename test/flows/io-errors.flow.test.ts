import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, type Outcome } from "../fixtures/command.ts";
import { clientOf, newFolder } from "../fixtures/work.ts";

/** System calls that fail as on a disk that does. */

const skip = spawnSync("strace", ["-V"]).error === undefined ? false : "needs strace";

/** Runs a command while these calls fail, on one path where one is given. */
function failing(args: readonly string[], calls: string, place?: string): Outcome {
  const where = place === undefined ? [] : ["-P", place];
  const inject = ["-e", `trace=${calls}`, "-e", `inject=${calls}:error=EIO`];
  return cairn([...args], { prefix: ["strace", "-f", "-qq", "-o", "/dev/null", ...where, ...inject] });
}

test("an I/O error message names the path that failed", { skip }, async () => {
  const folder = newFolder("names-path");
  fs.writeFileSync(path.join(folder, "file"), "one");
  const client = await clientOf(folder);
  const { save_point_id: id } = await client.save();
  const control = client.controlDirectory;
  for (const [calls, name] of [
    ["read", "store-key"],
    ["fstat,statx", "store-key"],
    ["pwrite64", "workspaces/main/lock"],
    ["unlinkat", ""],
  ] as const) {
    fs.appendFileSync(path.join(folder, "file"), "more");
    const place = path.join(control, name);
    const { error } = failing(["restore", id, "-C", folder], calls, name === "" ? undefined : place);
    assert.equal(error?.code, "io", `${calls} ${name}`);
    assert.ok(error.message.includes(place), error.message);
  }
});

test("restore reports a failed write as io_error, not as not_permitted", { skip }, async () => {
  const folder = newFolder("no-right");
  fs.writeFileSync(path.join(folder, "file"), "one");
  const client = await clientOf(folder);
  const { save_point_id: id } = await client.save();
  fs.rmSync(path.join(folder, "file"));
  const done = failing(["restore", id, "-C", folder], "utimensat");
  assert.equal(done.status, 10);
  const left = done.data["left_out"] as { path: string; reason: string; detail: string }[];
  assert.deepEqual(
    left.filter((each) => each.path === "file").map(({ reason, detail }) => [reason, detail]),
    [["io_error", "the disk could not write it (EIO)"]],
  );
  cairnOk(["status", folder]);
});
