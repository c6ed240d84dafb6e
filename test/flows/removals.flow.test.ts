import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { cairn, cairnOk, SCRATCH, startCairn } from "../fixtures/command.ts";
import { newFolder } from "../fixtures/work.ts";

/** Verbs that remove folders of Cairn's own keep away from everything that is not in them any more. */

const needsRoot = process.geteuid?.() === 0 ? false : "mounting needs root";

function run(...[program, ...args]: string[]): void {
  const done = spawnSync(program!, args, { encoding: "utf8" });
  if (done.status !== 0) throw new Error(`${program}: ${done.stderr}`);
}

/** Mounts a folder with a photo at `point`. The end of the test proves that the photo is still there. */
function mountPhoto(t: TestContext, point: string): { unmount: () => void } {
  const precious = newFolder("precious");
  const photo = path.join(precious, "photo");
  fs.writeFileSync(photo, "photo");
  fs.mkdirSync(point, { recursive: true });
  run("mount", "--bind", precious, point);
  const unmount = (): void => {
    while (fs.readFileSync("/proc/self/mountinfo", "utf8").includes(` ${point} `)) run("umount", point);
    assert.equal(fs.readFileSync(photo, "utf8"), "photo");
  };
  t.after(unmount);
  return { unmount };
}

function saved(): { folder: string; control: string } {
  const folder = newFolder();
  fs.writeFileSync(path.join(folder, "a"), "1");
  cairnOk(["save", folder]);
  const { workspace } = cairnOk(["status", "-C", folder]).data as { workspace: { control_directory: string } };
  return { folder, control: workspace.control_directory };
}

test(
  "release --delete-points refuses a mount in the control directory, and removes no point",
  { skip: needsRoot },
  (t) => {
    const { folder, control } = saved();
    const point = path.join(control, "mnt/inner");
    const { unmount } = mountPhoto(t, point);
    const refused = cairn(["release", folder, "--delete-points"]);
    assert.deepEqual([refused.status, refused.error?.code], [7, "refused"], refused.stdout);
    assert.ok(refused.error!.hint!.includes(`umount ${point}`), refused.error!.hint!);
    assert.equal(cairnOk(["verify", "--all", "-C", folder]).status, 0);
    unmount();
    cairnOk(["release", folder, "--delete-points"]);
    assert.equal(fs.existsSync(control), false);
  },
);

test("view --close refuses a mount in the view, which stays open", { skip: needsRoot }, (t) => {
  const { folder } = saved();
  const { view } = cairnOk(["view", "latest", "-C", folder]).data as { view: { view_id: string; path: string } };
  const { unmount } = mountPhoto(t, path.join(view.path, "mnt"));
  assert.equal(cairn(["view", "--close", view.view_id, "-C", folder]).status, 7);
  assert.equal(fs.readFileSync(path.join(view.path, "a"), "utf8"), "1");
  unmount();
  cairnOk(["view", "--close", view.view_id, "-C", folder]);
  assert.equal(fs.existsSync(view.path), false);
});

test(
  "a mount that the command of a bisect leaves is gone with the command, and nothing in it is removed",
  { skip: needsRoot },
  (t) => {
    const { folder, control } = saved();
    for (const content of ["2", "3"]) {
      fs.writeFileSync(path.join(folder, "a"), content);
      cairnOk(["save", folder]);
    }
    const precious = newFolder("precious");
    fs.writeFileSync(path.join(precious, "photo"), "photo");
    const script = `mkdir mnt && mount --bind ${precious} mnt && [ $(cat a) != 3 ]`;
    const bisect = ["bisect", "-C", folder, "--json", "head~2", "head", "--", "sh", "-c", script];
    const done = cairn(bisect, { own: true });
    assert.equal(done.status, 0, done.stdout);
    assert.deepEqual(fs.readdirSync(precious), ["photo"]);
    assert.deepEqual(fs.readdirSync(path.join(control, "tmp")), []);
    // The layers of a test do not show mounts inside the folder.
    fs.mkdirSync(path.join(folder, "mnt"));
    const { unmount } = mountPhoto(t, path.join(folder, "mnt"));
    const refused = cairn(bisect, { own: true });
    assert.deepEqual([refused.status, refused.error?.code], [7, "refused"], refused.stdout);
    assert.match(refused.error!.message, /a file system is mounted at .*\/mnt, inside/);
    unmount();
  },
);

test("recovery of a killed standalone fork can be killed while it removes the control directory", () => {
  const { folder, control } = saved();
  const to = `${folder}-standalone`;
  const own = new Set(fs.readdirSync(path.dirname(control)));
  assert.ok(cairn(["fork", "latest", to, "--standalone", "-C", folder], { failpoint: "fork.control-made" }).killed);
  const made = fs.readdirSync(path.dirname(control)).filter((name) => !own.has(name));
  assert.equal(made.length, 1);
  const recover = ["save", folder];
  assert.ok(cairn(recover, { failpoint: "fork.control-emptied" }).killed);
  cairnOk(recover);
  const left = fs.readdirSync(path.dirname(control)).filter((name) => !own.has(name));
  assert.deepEqual(left, []);
  assert.equal(fs.existsSync(to), false);
});

test("an import that finds another digest keeps a folder into which a program wrote meanwhile", async () => {
  const { folder } = saved();
  const directory = `${folder}-exported`;
  cairnOk(["export", "head", "--to", directory, "-C", folder]);
  const gate = path.join(SCRATCH, "import-gate");
  for (const writes of [true, false]) {
    const to = `${folder}-imported-${writes}`;
    fs.writeFileSync(gate, "");
    const { paused, ended } = startCairn(["import", "--from", directory, to], {
      failpoint: `import-directory.named@${gate}`,
    });
    await paused;
    if (writes) fs.writeFileSync(path.join(to, "mine"), "mine");
    else fs.renameSync(to, `${to}-elsewhere`);
    if (!writes) fs.mkdirSync(to);
    if (!writes) fs.writeFileSync(path.join(to, "mine"), "mine");
    fs.rmSync(gate);
    const { error } = await ended;
    assert.equal(error?.code, "damaged");
    assert.match(error!.message, /stays/);
    assert.equal(fs.readFileSync(path.join(to, "mine"), "utf8"), "mine");
  }
});
