import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { CairnError } from "../../errors.ts";
import { controlPaths } from "../place/control-layout.ts";
import { canTakeOver, NewFolder, settlePartial } from "./new-folder.ts";
import { leftPartials } from "../place/partials.ts";

/** A control directory, and a folder that is the root of a mount; null where this user may mount nothing. */
function mountRoot(t: TestContext): { control: string; target: Buffer } | null {
  const root = fs.realpathSync(fs.mkdtempSync(path.join(tmpdir(), "cairn-partial-")));
  const target = path.join(root, "mount");
  fs.mkdirSync(target);
  const isMounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=4m", "cairn-test", target]).status === 0;
  t.after(() => {
    if (isMounted) execFileSync("umount", [target]);
    fs.rmSync(root, { recursive: true, force: true });
  });
  if (!isMounted) {
    t.skip("this user may not mount a file system");
    return null;
  }
  return { control: path.join(root, "control"), target: Buffer.from(target) };
}

function begun(place: { control: string; target: Buffer }): NewFolder {
  const partial = NewFolder.begin(controlPaths(place.control), "restore", place.target);
  for (const name of ["a", "b", "c"]) {
    fs.mkdirSync(path.join(partial.staging.toString(), name));
    fs.writeFileSync(path.join(partial.staging.toString(), name, "file"), name);
  }
  return partial;
}

test("NewFolder.commit moves the entries back if moving them into a mount's root fails half-way", (t) => {
  const place = mountRoot(t);
  if (place === null) return;
  const partial = begun(place);
  const target = place.target.toString();
  // Nobody can rename the root of a mount.
  const stuck = path.join(partial.staging.toString(), "b");
  execFileSync("mount", ["-t", "tmpfs", "cairn-test", stuck]);
  assert.throws(
    () => partial.commit(),
    (error) => error instanceof CairnError && error.code === "io",
  );
  execFileSync("umount", [stuck]);
  assert.deepEqual(fs.readdirSync(target), [path.basename(partial.staging.toString())]);
  assert.deepEqual(fs.readdirSync(partial.staging.toString()).toSorted(), ["a", "b", "c"]);
  partial.commit();
  partial.end();
  assert.deepEqual(fs.readdirSync(target).toSorted(), ["a", "b", "c"]);
});

test("NewFolder.commit fails and moves its entries back if another program made one of the same name in the target", (t) => {
  const place = mountRoot(t);
  if (place === null) return;
  const partial = begun(place);
  const theirs = path.join(place.target.toString(), "c");
  fs.writeFileSync(theirs, "theirs");
  assert.throws(
    () => partial.commit(),
    (error) => error instanceof CairnError && error.code === "already_exists",
  );
  partial.abandon();
  assert.deepEqual(fs.readdirSync(place.target.toString()), ["c"]);
  assert.equal(fs.readFileSync(theirs, "utf8"), "theirs");
  assert.deepEqual(fs.readdirSync(path.join(place.control, "partial")), []);
});

test("recovery finishes a killed move into a mount's root, except for a name that another program took", (t) => {
  const place = mountRoot(t);
  if (place === null) return;
  const child = spawnSync(
    process.execPath,
    ["--input-type=module", "-e", KILLED, "--", place.control, place.target.toString()],
    { env: { ...process.env, CAIRN_FAILPOINT: "partial.moved" }, encoding: "utf8" },
  );
  assert.equal(child.signal, "SIGKILL", child.stderr);
  const target = place.target.toString();
  const control = controlPaths(place.control);
  const [dead] = leftPartials(control).dead;
  const staging = path.join(
    target,
    fs.readdirSync(target).find((name) => name.startsWith(".cairn-partial"))!,
  );
  const [next, last] = fs.readdirSync(staging);
  fs.writeFileSync(path.join(target, next!), "theirs");
  settlePartial(dead!);
  assert.deepEqual(leftPartials(control).dead, []);
  assert.equal(fs.readFileSync(path.join(target, next!), "utf8"), "theirs");
  assert.deepEqual(fs.readdirSync(staging), [next]);
  assert.equal(fs.readFileSync(path.join(target, last!, "file"), "utf8"), last);
});

test("NewFolder.commit moves the entries into the target if the target is the process's current folder", (t) => {
  const root = fs.realpathSync(fs.mkdtempSync(path.join(tmpdir(), "cairn-partial-")));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  const target = path.join(root, "here");
  fs.mkdirSync(target);
  const { ino } = fs.statSync(target);
  const control = path.join(root, "control");
  const run = spawnSync(process.execPath, ["--input-type=module", "-e", KILLED, "--", control, target], {
    cwd: target,
  });
  assert.equal(run.status, 0, run.stderr.toString());
  assert.equal(fs.statSync(target).ino, ino);
  assert.deepEqual(fs.readdirSync(target).toSorted(), ["a", "b", "c"]);
});

test("a process in the target takes over the staging folder that a killed process made beside the target", (t) => {
  const root = fs.realpathSync(fs.mkdtempSync(path.join(tmpdir(), "cairn-partial-")));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  const [target, control] = [path.join(root, "here"), path.join(root, "control")];
  fs.mkdirSync(target);
  const { ino } = fs.statSync(target);
  const run = (script: string, cwd: string, env: Record<string, string> = {}): ReturnType<typeof spawnSync> =>
    spawnSync(process.execPath, ["--input-type=module", "-e", script, "--", control, target], {
      cwd,
      env: { ...process.env, ...env },
    });
  assert.equal(run(KILLED, root, { CAIRN_FAILPOINT: "partial.made" }).signal, "SIGKILL");
  assert.equal(fs.readdirSync(root).length, 3);
  const next = run(TAKEN_OVER, target);
  assert.equal(next.status, 0, String(next.stderr));
  assert.equal(fs.statSync(target).ino, ino);
  assert.deepEqual(fs.readdirSync(target), ["new"]);
  assert.equal(fs.readdirSync(root).length, 2);
});

/** Without the rights of root, as which nothing is closed. */
const CLOSED_LETS_NOBODY = spawnSync("setpriv", ["--bounding-set=-all", "--inh-caps=-all", "true"]).status === 0;

for (const failpoint of [null, "partial.opened", "partial.moved-open", "partial.moved"]) {
  test(
    `folders with the modes 0555, 0711 and 0111 keep them in a move into a mount's root if ${failpoint === null ? "nobody interferes" : `the process is killed at ${failpoint}`}`,
    { skip: !CLOSED_LETS_NOBODY && "setpriv cannot take capabilities away" },
    (t) => {
      const place = mountRoot(t);
      if (place === null) return;
      const target = place.target.toString();
      const run = (script: string, env: Record<string, string> = {}): ReturnType<typeof spawnSync> =>
        spawnSync(
          "setpriv",
          [
            "--bounding-set=-all",
            "--inh-caps=-all",
            process.execPath,
            "--input-type=module",
            "-e",
            script,
            "--",
            place.control,
            target,
          ],
          { env: { ...process.env, ...env } },
        );
      const first = run(KILLED_CLOSED, failpoint === null ? {} : { CAIRN_FAILPOINT: failpoint });
      assert.equal(first.signal, failpoint === null ? null : "SIGKILL", String(first.stderr));
      if (failpoint !== null) assert.equal(run(SETTLED).status, 0);
      const modes = ["a", "b", "c"].map((name) => fs.statSync(path.join(target, name)).mode & 0o7777);
      assert.deepEqual(modes, [0o555, 0o711, 0o111]);
      assert.deepEqual(fs.readdirSync(target).toSorted(), ["a", "b", "c"]);
      assert.deepEqual(fs.readdirSync(path.join(place.control, "partial")), []);
    },
  );
}

test("recovery keeps the mode of a folder that another program made in place of a read-only one", (t) => {
  const root = fs.realpathSync(fs.mkdtempSync(path.join(tmpdir(), "cairn-partial-")));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  const [target, control] = [path.join(root, "here"), path.join(root, "control")];
  fs.mkdirSync(target);
  const run = spawnSync(process.execPath, ["--input-type=module", "-e", KILLED_CLOSED, "--", control, target], {
    cwd: target,
    env: { ...process.env, CAIRN_FAILPOINT: "partial.moving" },
  });
  assert.equal(run.signal, "SIGKILL", run.stderr.toString());
  fs.mkdirSync(path.join(target, "a"));
  fs.chmodSync(path.join(target, "a"), 0o755);
  const [dead] = leftPartials(controlPaths(control)).dead;
  assert.match(
    settlePartial(dead!) ?? "",
    /another program made "?a"? in .*here meanwhile: the entries that belong there stay in .*cairn-partial/,
  );
  const modes = ["a", "b", "c"].map((name) => fs.statSync(path.join(target, name)).mode & 0o7777);
  assert.deepEqual(modes, [0o755, 0o711, 0o111]);
});

for (const mode of [0o700, 0o500])
  for (const failpoint of [null, "partial.moving", "partial.moved", "partial.moved:3"])
    test(`a filled target has the mode 0${mode.toString(8)}, and 0700 while it is filled, if ${failpoint === null ? "nobody interferes" : `the process is killed at ${failpoint}`}`, (t) => {
      const root = fs.realpathSync(fs.mkdtempSync(path.join(tmpdir(), "cairn-partial-")));
      t.after(() => fs.rmSync(root, { recursive: true, force: true }));
      const [target, control] = [path.join(root, "here"), path.join(root, "control")];
      fs.mkdirSync(target, { mode: 0o755 });
      const modeNow = (): number => fs.statSync(target).mode & 0o7777;
      const script = KILLED.replace("partial.commit();", `partial.commit(${mode});`);
      const run = spawnSync(process.execPath, ["--input-type=module", "-e", script, "--", control, target], {
        cwd: target,
        env: failpoint === null ? process.env : { ...process.env, CAIRN_FAILPOINT: failpoint },
      });
      assert.equal(run.signal, failpoint === null ? null : "SIGKILL", run.stderr.toString());
      if (failpoint?.startsWith("partial.moved") === true) assert.equal(modeNow(), 0o700);
      for (const dead of leftPartials(controlPaths(control)).dead) assert.equal(settlePartial(dead), null);
      assert.equal(modeNow(), mode);
      assert.deepEqual(fs.readdirSync(target).toSorted(), ["a", "b", "c"]);
    });

test("NewFolder.commit gives the target its former mode back if the target cannot be filled", (t) => {
  const place = mountRoot(t);
  if (place === null) return;
  const partial = begun(place);
  const target = place.target.toString();
  fs.chmodSync(target, 0o755);
  fs.writeFileSync(path.join(target, "c"), "theirs");
  assert.throws(() => partial.commit(0o700), { code: "already_exists" });
  assert.equal(fs.statSync(target).mode & 0o7777, 0o755);
  partial.abandon();
});

const KILLED = `
import fs from "node:fs";
const at = (name) => import(new URL(name, ${JSON.stringify(import.meta.url)}).href);
const { controlPaths } = await at("../place/control-layout.ts");
const { NewFolder } = await at("./new-folder.ts");
const [control, target] = process.argv.slice(1);
const partial = NewFolder.begin(controlPaths(control), "restore", Buffer.from(target));
for (const name of ["a", "b", "c"]) {
  fs.mkdirSync(partial.staging + "/" + name);
  fs.writeFileSync(partial.staging + "/" + name + "/file", name);
}
partial.commit();
partial.end();
`;

const KILLED_CLOSED = KILLED.replace(
  "partial.commit();",
  `[0o555, 0o711, 0o111].forEach((mode, at) => fs.chmodSync(partial.staging + "/" + "abc"[at], mode));
partial.commit();`,
);

const TAKEN_OVER = `
import fs from "node:fs";
const at = (name) => import(new URL(name, ${JSON.stringify(import.meta.url)}).href);
const { controlPaths } = await at("../place/control-layout.ts");
const { NewFolder } = await at("./new-folder.ts");
const { leftPartials } = await at("../place/partials.ts");
const control = controlPaths(process.argv[1]);
const partial = NewFolder.takeOver(control, leftPartials(control).dead[0]);
fs.writeFileSync(partial.staging + "/new", "");
partial.commit();
partial.end();
`;

const SETTLED = `
const at = (name) => import(new URL(name, ${JSON.stringify(import.meta.url)}).href);
const { controlPaths } = await at("../place/control-layout.ts");
const { settlePartial } = await at("./new-folder.ts");
const { leftPartials } = await at("../place/partials.ts");
for (const dead of leftPartials(controlPaths(process.argv[1])).dead) settlePartial(dead);
`;

/** A folder in which a restore makes another, with one of somebody else's in it that must stay. */
function besideOthers(t: TestContext): { root: string; partial: NewFolder; swap: () => void } {
  const root = fs.realpathSync(fs.mkdtempSync(path.join(tmpdir(), "cairn-partial-")));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  fs.mkdirSync(path.join(root, "theirs/deep"), { recursive: true });
  const target = Buffer.from(path.join(root, "target"));
  const partial = NewFolder.begin(controlPaths(path.join(root, "control")), "restore", target);
  fs.writeFileSync(path.join(partial.staging.toString(), "ours"), "");
  const swap = (): void => {
    fs.renameSync(partial.staging, path.join(root, "ours"));
    fs.renameSync(path.join(root, "theirs"), partial.staging);
  };
  return { root, partial, swap };
}

test("NewFolder.commit fails and keeps another program's folder that replaced the staging folder", (t) => {
  const { root, partial, swap } = besideOthers(t);
  swap();
  assert.throws(
    () => partial.commit(),
    (error) => error instanceof CairnError && error.code === "conflict",
  );
  const warnings: string[] = [];
  partial.abandon((message) => void warnings.push(message));
  assert.deepEqual(fs.readdirSync(partial.staging), ["deep"]);
  assert.deepEqual(fs.readdirSync(path.join(root, "ours")), ["ours"]);
  assert.deepEqual(warnings, [
    `${partial.staging.toString()} is not the folder that Cairn made there: it is not removed`,
  ]);
  assert.deepEqual(fs.readdirSync(path.join(root, "control/partial")), []);
});

test("NewFolder.abandon does not follow a symbolic link that replaced the staging folder", (t) => {
  const { root, partial } = besideOthers(t);
  fs.renameSync(partial.staging, path.join(root, "ours"));
  fs.symlinkSync("theirs", partial.staging);
  partial.abandon();
  assert.deepEqual(fs.readdirSync(path.join(root, "theirs")), ["deep"]);
  assert.equal(fs.lstatSync(path.join(root, "theirs")).mode & 0o777, 0o755);
});

test("recovery neither takes over nor removes another program's folder that replaced the staging folder", (t) => {
  const { root, partial, swap } = besideOthers(t);
  partial.noteMade();
  assert.match(partial.record.inode ?? "", /^\d+$/);
  const control = controlPaths(path.join(root, "control"));
  const file = path.join(control.partial, fs.readdirSync(control.partial)[0]!);
  const dead = { file, record: partial.record, committed: false };
  assert.equal(canTakeOver(dead), true);
  swap();
  assert.equal(canTakeOver(dead), false);
  assert.equal(NewFolder.takeOver(control, dead), null);
  assert.deepEqual(fs.readdirSync(partial.staging), ["deep"]);
  assert.match(settlePartial(dead) ?? "", /is not the folder that Cairn made there: it is not removed$/);
  assert.deepEqual(fs.readdirSync(partial.staging), ["deep"]);
  assert.deepEqual(fs.readdirSync(control.partial), []);
});

test("NewFolder.takeOver uses a staging folder that has the recorded inode", (t) => {
  const { root, partial } = besideOthers(t);
  partial.noteMade();
  const control = controlPaths(path.join(root, "control"));
  const file = path.join(control.partial, fs.readdirSync(control.partial)[0]!);
  const taken = NewFolder.takeOver(control, { file, record: partial.record, committed: false });
  assert.deepEqual(fs.readdirSync(taken!.staging), ["ours"]);
  const [next] = fs.readdirSync(control.partial);
  const dead = { file: path.join(control.partial, next!), record: taken!.record, committed: false };
  taken!.letGo();
  assert.equal(settlePartial(dead), null);
  assert.equal(fs.existsSync(taken!.staging), false);
});
