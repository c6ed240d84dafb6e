import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { makeWorkspace, initSelfContained } from "./make-workspace.ts";
import { userStateDirectory } from "../../fs/users.ts";

/** A folder, and a link to a folder with a name that is not UTF-8; null if the file system permits no such name. */
function scratch(t: TestContext): { own: string; folder: string; link: string; behind: Buffer } | null {
  const own = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "cairn-text-")));
  const state = process.env["XDG_STATE_HOME"];
  process.env["XDG_STATE_HOME"] = path.join(own, "state");
  t.after(() => {
    if (state === undefined) delete process.env["XDG_STATE_HOME"];
    else process.env["XDG_STATE_HOME"] = state;
    fs.rmSync(own, { recursive: true, force: true });
  });
  const behind = Buffer.concat([Buffer.from(path.join(own, "caf")), Buffer.from([0xe9])]);
  try {
    fs.mkdirSync(behind);
  } catch {
    t.skip("names are UTF-8 here");
    return null;
  }
  const [folder, link] = [path.join(own, "work"), path.join(own, "link")];
  fs.mkdirSync(folder);
  fs.symlinkSync(behind, link);
  return { own, folder, link, behind };
}

const OPTIONS = { engine: "copy", populate: () => Promise.resolve() };
const REFUSED = {
  code: "unsupported",
  message: /no control directory can be made in .*: it is not UTF-8/,
  hint: /choose a p/,
};

test("save and init make nothing if the control directory's path would contain a name that is not UTF-8", async (t) => {
  const place = scratch(t);
  if (place === null) return;
  const { folder, link, behind } = place;
  const given = { ...OPTIONS, controlDirectory: path.join(link, "above/control") };
  for (let i = 0; i < 2; i++) {
    await assert.rejects(makeWorkspace(folder, given), REFUSED);
    await assert.rejects(initSelfContained(path.join(link, "self"), OPTIONS), REFUSED);
  }
  assert.deepEqual(fs.readdirSync(behind), []);
  process.env["XDG_STATE_HOME"] = link;
  await assert.rejects(makeWorkspace(folder, OPTIONS), REFUSED);
  assert.ok(!fs.existsSync(path.join(userStateDirectory(), "control")));
});

test("save and init make nothing if the path contains a replacement character and does not exist", async (t) => {
  const place = scratch(t);
  if (place === null) return;
  const { own, folder } = place;
  const before = fs.readdirSync(own);
  process.env["XDG_STATE_HOME"] = path.join(own, "caf\uFFFD/state");
  await assert.rejects(makeWorkspace(folder, OPTIONS), REFUSED);
  await assert.rejects(initSelfContained(path.join(own, "caf\uFFFD/self"), OPTIONS), REFUSED);
  assert.deepEqual(fs.readdirSync(own), before);
  fs.mkdirSync(path.join(own, "caf\uFFFD"));
  const { created } = await makeWorkspace(folder, OPTIONS);
  assert.ok(created, "of a name that really has that character something is there");
});
