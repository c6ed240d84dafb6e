import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { HookRun } from "../../src/contract/words.ts";
import { buildCommand, cairn, cairnOk, type Outcome, SCRATCH } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { eventually } from "../fixtures/eventually.ts";
import { call } from "../fixtures/http.ts";
import { ageRuns } from "../fixtures/schedule.ts";
import { newRepository, restic } from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";

/** A workspace with one file. */
function workspace(name: string): string {
  const folder = newFolder(name);
  fs.writeFileSync(path.join(folder, "letter"), "dear Ben");
  cairnOk(["save", folder]);
  return folder;
}

function hooked(name: string, ...words: string[]): string {
  const folder = workspace(name);
  cairnOk(["hooks", folder, ...words]);
  return folder;
}

function runsOf({ data }: Outcome): string[] {
  return ((data["hooks"] ?? []) as HookRun[]).map(({ hook, exit_code: code }) => `${hook} ${code}`);
}

const DUMP = `echo one > "$CAIRN_DUMPS/a.sql"; mkdir "$CAIRN_DUMPS/b"; echo two > "$CAIRN_DUMPS/b/c"`;
const points = (folder: string): { cause: Record<string, unknown>; save_point_id: string }[] =>
  cairnOk(["-C", folder, "history"]).data["save_points"] as never;

test("a point has the files that the command before a save wrote, its output and status, and the folder has none", () => {
  const folder = hooked(
    "dumps",
    "--set",
    `before-save=${DUMP}; echo said; ls -A "$CAIRN_FOLDER" >&2`,
    "--set",
    "after-save=echo $CAIRN_SAVE_POINT",
  );
  // Rules of the folder leave no dump out.
  fs.writeFileSync(path.join(folder, ".cairnignore"), ".*\n*.sql\nb\n");
  const saved = cairnOk(["save", folder, "--exclude-larger-than", "2", "--exclude-if-present", "c", "--no-secrets"]);
  assert.deepEqual(runsOf(saved), ["before_save 0", "after_save 0"]);
  assert.deepEqual(fs.readdirSync(folder).toSorted(), [".cairnignore", "letter"]);
  const { save_point_id: id, cause } = saved.data["save_point"] as {
    save_point_id: string;
    cause: { hooks: HookRun[] };
  };
  assert.match(cause.hooks[0]!.output, /^said\n\.cairn-tmp-/);
  assert.equal((saved.data["hooks"] as HookRun[])[1]!.output, `${id}\n`);
  const to = path.join(SCRATCH, "dumps-to");
  cairnOk(["-C", folder, "restore", id, "--to", to]);
  assert.equal(fs.readFileSync(path.join(to, ".cairn-dumps/a.sql"), "utf8"), "one\n");
  assert.equal(fs.readFileSync(path.join(to, ".cairn-dumps/b/c"), "utf8"), "two\n");
});

test("a command before a save that fails or takes too long refuses the save and leaves nothing", () => {
  const folder = hooked(
    "refused",
    "--set",
    `before-save=${DUMP}; echo no connection >&2; exit 3`,
    "--set",
    `after-save=touch ${SCRATCH}/thawed`,
  );
  const refused = cairn(["save", folder]);
  assert.deepEqual([refused.status, refused.error?.code], [7, "refused"]);
  assert.match(
    refused.error!.message,
    /nothing was saved, because the command before the save of .* failed with status 3: no connection/,
  );
  assert.ok(fs.existsSync(path.join(SCRATCH, "thawed")), "the `after` command runs");
  assert.deepEqual([fs.readdirSync(folder), points(folder).length], [["letter"], 1]);
  cairnOk(["hooks", folder, "--set", `before-save=${DUMP}; sleep 600`, "--set", "time-limit=1"]);
  assert.match(cairn(["save", folder]).error!.message, /the command before the save of .* was ended after 1 s/);
  assert.deepEqual([fs.readdirSync(folder), points(folder).length], [["letter"], 1]);
  cairnOk(["save", folder, "--no-hooks"]);
  assert.equal(points(folder).length, 2);
  for (const limit of ["0", "9999999"])
    assert.equal(cairn(["hooks", folder, "--set", `time-limit=${limit}`]).status, 2);
});

test(
  "a command after a save that no shell can run leaves the point, and the exit status is 10",
  { skip: process.getuid!() !== 0 && "only root can hide the shell" },
  () => {
    const hide = `mount --bind /dev/null ${fs.realpathSync("/bin/sh")}`;
    const folder = hooked("no-shell", "--set", `before-save=${hide}`, "--set", "after-save=true");
    const saved = cairn(["save", folder], { prefix: ["unshare", "--mount"] });
    assert.deepEqual([saved.status, runsOf(saved)], [10, ["before_save 0", "after_save 127"]]);
    assert.match(saved.warnings.join(), /the command after the save of .* failed with status 127: .*EACCES/);
  },
);

test("a command after a save that fails leaves the point, and the exit status is 10", () => {
  const folder = hooked("after", "--set", "after-save=echo oops; exit 4");
  const saved = cairn(["save", folder]);
  assert.deepEqual([saved.status, runsOf(saved)], [10, ["after_save 4"]]);
  assert.match(saved.warnings.join(), /the command after the save of .* failed with status 4: oops/);
  assert.equal(points(folder).length, 2);
});

test("a backup runs its own commands around those of its save, and restic reads the dumps", async () => {
  const order = path.join(SCRATCH, "order");
  const note = (word: string): string => `echo ${word} >> ${order}`;
  const folder = hooked(
    "backup",
    "--set",
    `before-backup=${note("1")}; ${DUMP}`,
    "--set",
    `before-save=${note("2")}; echo three > "$CAIRN_DUMPS/d"`,
    "--set",
    `after-save=${note("3")}`,
    "--set",
    `after-backup=${note("4")}; exit 5`,
  );
  const place = await newRepository("hooks");
  const made = cairn(["backup", "create", folder, ...place.options]);
  assert.deepEqual(
    [made.status, runsOf(made)],
    [10, ["before_backup 0", "before_save 0", "after_save 0", "after_backup 5"]],
  );
  assert.equal(fs.readFileSync(order, "utf8"), "1\n2\n3\n4\n");
  assert.deepEqual(fs.readdirSync(folder), ["letter"]);
  for (const [file, text] of [
    ["a.sql", "one\n"],
    ["d", "three\n"],
  ])
    assert.equal(restic(place, "dump", "latest", path.join(folder, ".cairn-dumps", file!)), text);
  // Of what is there already nothing is dumped.
  assert.deepEqual(runsOf(cairnOk(["backup", "create", "-C", folder, "head", ...place.options])), []);
  cairnOk(["hooks", folder, "--set", "before-backup=exit 6"]);
  const before = cairnOk(["backup", "list", ...place.options]).data["snapshots"] as unknown[];
  const refused = cairn(["backup", "create", folder, ...place.options]);
  assert.deepEqual([refused.status, refused.error?.code], [7, "refused"]);
  assert.equal((cairnOk(["backup", "list", ...place.options]).data["snapshots"] as unknown[]).length, before.length);
});

test("a backup of several paths runs the hooks of each workspace in which they lie, and restic reads the dumps", async () => {
  const order = path.join(SCRATCH, "paths-order");
  const note = (word: string): string => `echo ${word} "$CAIRN_SAVE_POINT" >> ${order}`;
  const shop = hooked(
    "shop",
    "--set",
    `before-backup=${DUMP}; : > "$CAIRN_DUMPS/none"`,
    "--set",
    `after-backup=${note("shop")}`,
  );
  const mail = hooked("mail", "--set", `before-save=${DUMP}`, "--set", `after-save=${note("mail")}`);
  fs.writeFileSync(path.join(mail, "list"), `${shop}\n${mail}/letter\n`);
  const place = await newRepository("hooks-of-paths");
  const made = cairn(["backup", "create", "--files-from", path.join(mail, "list"), ...place.options]);
  const ran = ["before_backup 0", "after_backup 0", "before_save 0", "after_save 0"];
  assert.deepEqual([made.status, runsOf(made)], [0, ran]);
  assert.match(made.warnings.join(), /empty dumps.*: "none"/);
  assert.equal(fs.readFileSync(order, "utf8"), "mail \nshop \n");
  // Of the second folder only a file is backed up, and its dumps.
  for (const folder of [shop, mail])
    assert.equal(restic(place, "dump", "latest", path.join(folder, ".cairn-dumps/b/c")), "two\n");
  cairnOk(["hooks", mail, "--set", "before-backup=exit 6"]);
  const refused = cairn(["backup", "create", shop, mail, ...place.options]);
  assert.deepEqual([refused.status, refused.error?.code], [7, "refused"]);
  assert.match(refused.error!.message, new RegExp(`the command before the backup of ${mail} failed with status 6`));
  assert.deepEqual([fs.readdirSync(shop), fs.readdirSync(mail)], [["letter"], ["letter", "list"]]);
  assert.deepEqual(runsOf(cairnOk(["backup", "create", shop, mail, "--no-hooks", ...place.options])), []);
  cairnOk(["hooks", mail, "--set", "before-backup=", "--set", "after-backup=exit 7"]);
  assert.equal(cairn(["backup", "create", shop, mail, ...place.options]).status, 10);
});

test("cairn due runs the hooks of a backup once, and those of a save at other times", async () => {
  const count = path.join(SCRATCH, "count");
  // The folders of the other tests are none of this user.
  const mine = { env: { XDG_STATE_HOME: path.join(SCRATCH, "state-due") } };
  const folder = newFolder("due");
  cairnOk(["save", folder], mine);
  const hooks = ["--set", `before-backup=echo b >> ${count}; ${DUMP}`, "--set", `before-save=echo s >> ${count}`];
  cairnOk(["hooks", folder, ...hooks], mine);
  const place = await newRepository("due-hooks");
  cairnOk(["backup", "use", folder, ...place.options], mine);
  cairnOk(["due"], mine);
  assert.equal(fs.readFileSync(count, "utf8"), "b\ns\n");
  const made = cairnOk(["-C", folder, "history"], mine).data["save_points"] as { cause: { kind: string } }[];
  assert.deepEqual(
    made.map(({ cause }) => cause.kind),
    ["schedule", "person"],
  );
  assert.equal(restic(place, "dump", "latest", path.join(folder, ".cairn-dumps/a.sql")), "one\n");
  ageRuns(2, mine.env);
  cairnOk(["due"], mine);
  assert.equal(fs.readFileSync(count, "utf8"), "b\ns\ns\n");
  // A failed backup has saved the folder, so that no save follows.
  ageRuns(24, mine.env);
  fs.renameSync(place.location, `${place.location}-away`);
  assert.equal(cairn(["due"], mine).status, 3);
  assert.equal(fs.readFileSync(count, "utf8"), "b\ns\ns\nb\ns\n");
});

test("saves of agents and of `run` run no hooks", () => {
  const folder = hooked("turns", "--set", "before-save=exit 9");
  cairnOk(["save", folder, "--cause", '{"kind":"tool_call","tool":"bash"}']);
  cairnOk(["-C", folder, "run", "--", "true"]);
  assert.equal(cairn(["save", folder]).status, 7);
});

test("a directory .cairn-dumps that a restore brought is refused by name, and the hint makes room for new dumps", () => {
  const folder = hooked("brought", "--set", `before-save=date +%N > "$CAIRN_DUMPS/now"`);
  cairnOk(["save", folder]);
  cairnOk(["-C", folder, "restore", "latest"]);
  const old = fs.readFileSync(path.join(folder, ".cairn-dumps/now"), "utf8");
  const { status, error } = cairn(["save", folder]);
  assert.equal(status, 7);
  assert.match(error!.message, /\/\.cairn-dumps exists, for example after a restore/);
  assert.deepEqual(fs.readdirSync(folder).toSorted(), [".cairn-dumps", "letter"]);
  assert.equal(spawnSync("sh", ["-c", /: (mv .*)$/.exec(error!.hint!)![1]!]).status, 0);
  cairnOk(["save", folder]);
  const to = path.join(SCRATCH, "brought-to");
  cairnOk(["-C", folder, "restore", "latest", "--to", to]);
  assert.equal(fs.readFileSync(path.join(to, "restored-dumps/now"), "utf8"), old);
  assert.notEqual(fs.readFileSync(path.join(to, ".cairn-dumps/now"), "utf8"), old);
});

test("a command that the shell cannot parse is refused when it is set, and the hooks before stay", () => {
  const folder = hooked("syntax", "--set", "after-save=true");
  const refused = cairn([
    "hooks",
    folder,
    "--set",
    'before-backup=if true; then echo "$CAIRN_DUMPS"',
    "--set",
    "after-save=",
  ]);
  assert.deepEqual([refused.status, refused.error?.code], [2, "usage"]);
  assert.match(refused.error!.message, /Syntax error|syntax error|unexpected/);
  assert.deepEqual(runsOf(cairnOk(["save", folder])), ["after_save 0"]);
});

test("--no-hooks of a backup without a save is refused in its own words", async () => {
  const folder = workspace("no-save");
  const place = await newRepository("no-hooks");
  const { status, error } = cairn(["backup", "create", "-C", folder, "head", "--no-hooks", ...place.options]);
  assert.equal(status, 2);
  assert.match(error!.message, /^--no-hooks is an option of the save before the backup/);
});

test("a folder brings no hooks along: neither a copied workspace nor a moved one runs those of the original", () => {
  const parent = newFolder("self");
  const place = path.join(parent, "one");
  fs.mkdirSync(place);
  cairnOk(["init", place, "--self-contained"]);
  cairnOk(["hooks", place, "--set", "before-save=exit 9"]);
  const text = fs.readdirSync(parent, { recursive: true }).join("\n");
  assert.ok(!text.includes("hooks"), text);
  assert.equal(fs.readdirSync(path.join(SCRATCH, "state/cairn/hooks")).length > 0, true);
  const copy = newFolder("copied");
  fs.cpSync(parent, copy, { recursive: true });
  const refused = cairn(["save", path.join(copy, "one")]);
  assert.deepEqual([refused.status, refused.error?.code], [7, "refused"]);
  assert.match(refused.error!.message, /the hooks of this workspace were set for/);
  // The original keeps its hooks, whatever the copy sets.
  cairnOk(["hooks", path.join(copy, "one"), "--none"]);
  assert.deepEqual(runsOf(cairnOk(["save", path.join(copy, "one")])), []);
  assert.equal(cairnOk(["hooks", path.join(copy, "one")]).data["hooks"], null);
  assert.match(cairn(["save", place]).error!.message, /the command before the save of .* failed with status 9/);
  cairnOk(["hooks", path.join(copy, "one"), "--set", "after-save=true"]);
  assert.deepEqual(runsOf(cairnOk(["save", path.join(copy, "one")])), ["after_save 0"]);
  assert.equal(cairn(["save", place]).status, 7);
});

test("a hook that saves or backs up its own folder runs no hooks again, and those of other folders once", () => {
  const count = path.join(SCRATCH, "nested");
  const line = (words: string): string => `'${process.execPath}' '${buildCommand()}' ${words}`;
  const [one, two] = [workspace("nested-one"), workspace("nested-two")];
  cairnOk(["hooks", one, "--set", `after-save=echo 1 >> ${count}; ${line(`save ${one}`)}; ${line(`save ${two}`)}`]);
  cairnOk(["hooks", two, "--set", `after-save=echo 2 >> ${count}; ${line(`save ${one}`)}`]);
  cairnOk(["save", one]);
  assert.equal(fs.readFileSync(count, "utf8"), "1\n2\n");
});

test("a save returns its point though its dumps cannot be removed", (t) => {
  const folder = hooked(
    "stuck",
    "--set",
    `before-save=echo one > "$CAIRN_DUMPS/a"; mkdir "$CAIRN_DUMPS/m"; mount -t tmpfs none "$CAIRN_DUMPS/m"`,
    "--set",
    "after-save=true",
  );
  t.after(() => {
    for (const name of fs.readdirSync(folder)) spawnSync("umount", [path.join(folder, name, "m")]);
  });
  const saved = cairn(["save", folder]);
  if (saved.error?.message.includes("mount:") === true) return t.skip("needs the right to mount a tmpfs");
  assert.deepEqual([saved.status, runsOf(saved)], [0, ["before_save 0", "after_save 0"]]);
  assert.deepEqual(runsOf(cairnOk(["save", folder])), ["before_save 0", "after_save 0"]);
});

test(
  "another user's hooks and another user's folder are refused",
  { skip: process.geteuid?.() !== 0 && "needs root" },
  () => {
    const folder = hooked("owners", "--set", `before-save=${DUMP}`);
    const dir = path.join(SCRATCH, "state/cairn/hooks");
    const file = fs
      .readdirSync(dir)
      .map((name) => path.join(dir, name))
      .find((each) => fs.readFileSync(each, "utf8").includes(folder))!;
    fs.chownSync(file, 1234, 1234);
    assert.match(cairn(["save", folder]).error!.message, /belong to the user 1234/);
    fs.chownSync(file, 0, 0);
    fs.chownSync(folder, 1234, 1234);
    assert.match(
      cairn(["save", folder]).error!.message,
      /belongs to the user 1234, so no command writes dumps into it/,
    );
    assert.deepEqual(fs.readdirSync(folder), ["letter"]);
  },
);

test("the daemon runs hooks for calls and scheduled backups, not for automatic saves, and agents may not set them", async (t) => {
  const daemon = new TestDaemon(t);
  const repository = await newRepository("daemon-hooks");
  const count = path.join(daemon.folder, "count");
  const folder = newFolder("served");
  fs.writeFileSync(path.join(folder, "letter"), "dear Ben");
  await daemon.start();
  await daemon.call("register", { path: folder });
  const runs = (): string => (fs.existsSync(count) ? fs.readFileSync(count, "utf8") : "");
  const edit = {
    beforeBackup: `echo b >> ${count}; ${DUMP}`,
    beforeSave: `echo s >> ${count}`,
    afterBackup: "echo late; exit 7",
  };
  await daemon.call("setHooks", { workspace: folder, edit });
  await daemon.call("save", { workspace: folder });
  assert.equal(runs(), "s\n");
  const { token } = (await daemon.call("tokenCreate", { options: { workspaces: [folder] } })) as { token: string };
  for (const [verb, members] of Object.entries({
    setHooks: { edit: null },
    hooks: {},
    save: { options: { hooks: true } },
  })) {
    const [status] = await call(daemon.socket, verb, { workspace: folder, ...members }, token);
    assert.equal(status, 403, verb);
  }
  await daemon.stop();
  daemon.configure(
    `[saves]\nat_most_every = "1s"\n[[backup]]\nworkspace = "${folder}"\nrepository = "${repository.location}"\npassword_file = "${repository.passwordFile}"\nevery = "1d"\n`,
  );
  await daemon.start();
  await eventually("the backup", () =>
    /the command after the backup of .* failed with status 7: late/.test(daemon.log),
  );
  fs.writeFileSync(path.join(folder, "letter"), "dear Ann");
  await eventually("a save", () => daemon.log.includes("saved automatically"));
  assert.equal(runs(), "s\nb\ns\n");
  assert.equal(restic(repository, "dump", "latest", path.join(folder, ".cairn-dumps/a.sql")), "one\n");
});
