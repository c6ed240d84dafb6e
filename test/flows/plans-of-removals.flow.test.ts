import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, type Outcome } from "../fixtures/command.ts";
import { readFolder } from "../fixtures/folder-state.ts";
import { assertStale, idsOf } from "../fixtures/plans.ts";
import { backup, newRepository, type TestRepository, tryBackup } from "../fixtures/repository.ts";
import { newFolder, whilePaused } from "../fixtures/work.ts";

/** Removals of snapshots, packs, forks and points are done exactly as their plans showed them, or not at all. */

interface Backups {
  place: TestRepository;
  folder: string;
  /** makes a snapshot with a file of its own, and returns its id */
  add(name: string): string;
}

async function backups(): Promise<Backups> {
  const place = await newRepository();
  const folder = newFolder("planned-removal");
  cairnOk(["init", folder]);
  const add = (name: string): string => {
    fs.writeFileSync(path.join(folder, "a"), `${name} `.repeat(50_000));
    const { snapshot } = backup(place, "create", folder).data as { snapshot: { snapshot_id: string } };
    return snapshot.snapshot_id;
  };
  return { place, folder, add };
}

/** Lists the files of the repository without its locks. */
function filesOf({ location }: TestRepository): string[] {
  const all = fs.readdirSync(location, { recursive: true, encoding: "utf8" });
  return all.filter((name) => !name.startsWith("locks/")).toSorted();
}

const KEEP = ["--keep-last", "2"];

test("a plan of backup forget is refused and nothing is done after a tag, which changes an id", async () => {
  const at = await backups();
  const ids = ["one", "two", "three"].map(at.add);
  const planOf = () =>
    backup(at.place, "forget", ...KEEP, "--plan").data as {
      plan_id: string;
      groups: { snapshots: { snapshot_id: string; keep: boolean }[] }[];
    };
  const { plan_id: plan, groups } = planOf();
  const going = groups.flatMap(({ snapshots }) => snapshots.filter(({ keep }) => !keep));
  assert.deepEqual(
    going.map(({ snapshot_id: id }) => id),
    [ids[0]],
  );
  const { tagged } = backup(at.place, "tag", ids[2]!, "--add", "release").data as { tagged: { new_id: string }[] };
  const before = filesOf(at.place);
  const refused = tryBackup(at.place, "forget", ...KEEP, "--apply", plan);
  assertStale(refused, new RegExp(`keep 2 snapshots \\(${tagged[0]!.new_id.slice(0, 8)},`));
  assert.deepEqual(filesOf(at.place), before);
  assert.match(refused.error!.hint!, new RegExp(planOf().plan_id.slice(0, 8)));
});

test("a plan of backup forget is applied as shown, also after snapshots of other folders came", async () => {
  const at = await backups();
  const ids = ["one", "two", "three"].map(at.add);
  const chosen = [...KEEP, "--path", at.folder];
  const { plan_id: plan } = backup(at.place, "forget", ...chosen, "--plan").data;
  const other = newFolder("planned-removal-other");
  cairnOk(["init", other]);
  backup(at.place, "create", other);
  const { removed, plan_id: done } = backup(at.place, "forget", ...chosen, "--apply", plan as string).data;
  assert.deepEqual([removed, done], [[ids[0]], null]);
});

test("a plan of named snapshots for backup forget is bound to their list, and to the prune that follows", async () => {
  const at = await backups();
  const [first, second] = ["one", "two", "three"].map(at.add) as [string, string, string];
  const { plan_id: plan } = backup(at.place, "forget", first, "--plan").data as { plan_id: string };
  const before = filesOf(at.place);
  const names = new RegExp(`would remove 1 snapshot \\(${second.slice(0, 8)}\\)`);
  assertStale(tryBackup(at.place, "forget", second, "--apply", plan), names);
  assertStale(tryBackup(at.place, "forget", first, "--prune", "--apply", plan), /would remove 1 snapshot/);
  assert.deepEqual(filesOf(at.place), before);
  assert.deepEqual(backup(at.place, "forget", first, "--apply", plan).data["removed"], [first]);
  assert.equal(tryBackup(at.place, "forget", first, "--apply", plan).error!.code, "not_found");
});

type PlannedPacks = Record<"mark" | "free" | "rewrite", string[]>;

const packsIn = ({ location }: TestRepository): string[] =>
  filesOf({ location } as TestRepository).flatMap((name) => (/^data\/..\//.test(name) ? [path.basename(name)] : []));

function planOfPrune({ place }: Backups, ...how: string[]): { id: string; packs: PlannedPacks } {
  const { plan_id: id, planned_packs: packs } = backup(place, "prune", ...how, "--plan").data;
  return { id: id as string, packs: packs as PlannedPacks };
}

for (const how of [[], ["--instant"]])
  test(`a plan of backup prune ${how.join(" ")} is refused and nothing is done after a forget or another prune`, async () => {
    const at = await backups();
    const ids = ["one", "two", "three", "four"].map(at.add);
    backup(at.place, "forget", ids[0]!);
    for (const [change, names] of [
      [["forget", ids[1]!], /would (mark|free|rewrite) \d+ packs? \([0-9a-f]{8}/],
      [["prune", "--instant"], /would change no pack now/],
    ] as const) {
      const { id } = planOfPrune(at, ...how);
      backup(at.place, ...(change as readonly [string, string]));
      const before = filesOf(at.place);
      assertStale(tryBackup(at.place, "prune", ...how, "--apply", id), names);
      assert.deepEqual(filesOf(at.place), before);
      assert.notEqual(planOfPrune(at, ...how).id, id);
    }
  });

test("a plan of backup prune is bound to its options, and done as shown, also after a snapshot came", async () => {
  const at = await backups();
  const ids = ["one", "two", "three"].map(at.add);
  backup(at.place, "forget", ids[0]!);
  const marking = planOfPrune(at);
  const planned = planOfPrune(at, "--instant");
  assert.ok(planned.packs.free.length + planned.packs.rewrite.length > 0);
  at.add("four");
  assert.deepEqual(planOfPrune(at, "--instant"), planned);
  const files = filesOf(at.place);
  assertStale(tryBackup(at.place, "prune", "--instant", "--apply", marking.id), /would free \d+ packs?/);
  assert.deepEqual(filesOf(at.place), files);
  const before = packsIn(at.place);
  const done = backup(at.place, "prune", "--instant", "--apply", planned.id).data;
  const { free, rewrite } = planned.packs;
  assert.deepEqual([done["removed_packs"], done["repacked_packs"]], [free.length, rewrite.length]);
  const gone = before.filter((pack) => !packsIn(at.place).includes(pack));
  assert.deepEqual(gone.toSorted(), [...free, ...rewrite].toSorted());
  backup(at.place, "forget", ids[1]!);
  const { id, packs } = planOfPrune(at);
  const marked = backup(at.place, "prune", "--apply", id).data;
  assert.ok(packs.mark.length > 0);
  assert.deepEqual([marked["marked_packs"], marked["merged_packs"]], [packs.mark.length, 0]);
  assert.deepEqual(planOfPrune(at).packs, { mark: [], free: [], rewrite: [] });
});

interface Forked {
  folder: string;
  fork: string;
  write(name: string, content: string): void;
}

let forks = 0;

/** A folder with one point, and a fork of it with an edited file and a new file. */
function forked(): Forked {
  const folder = newFolder("planned-fork");
  fs.writeFileSync(path.join(folder, "a"), "one");
  fs.writeFileSync(path.join(folder, "large"), "1".repeat(3 << 20));
  cairnOk(["save", folder]);
  const fork = `${folder}-fork-${forks++}`;
  cairnOk(["fork", "-C", folder, "head", fork]);
  const write = (name: string, content: string): void => fs.writeFileSync(path.join(fork, name), content);
  write("a", "two");
  write("new", "two");
  return { folder, fork, write };
}

interface ForkPlan {
  id: string;
  save_point_ids: string[];
  entries: { path: string; change: string }[] | null;
}

const removal = ({ folder, fork }: Forked, ...more: string[]): Outcome =>
  cairn(["-C", folder, "fork", "--remove", fork, ...more]);

const planOfFork = (at: Forked, ...more: string[]): ForkPlan =>
  removal(at, ...more, "--plan").data["plan"] as unknown as ForkPlan;

/** In this order, each beside those before it. */
const CHANGED_FORKS: Readonly<Record<string, { change(at: Forked): void; names: RegExp }>> = {
  edit: { change: ({ write }) => write("a", "three"), names: /would save 2 changed entries \("a", "new"\)/ },
  "edit of the same size": { change: ({ write }) => write("new", "owt"), names: /2 changed entries/ },
  "edit of a large file": {
    change: ({ fork }) => fs.appendFileSync(path.join(fork, "large"), "more"),
    names: /would save 3 changed entries \("a", "large", "new"\)/,
  },
  chmod: { change: ({ fork }) => fs.chmodSync(path.join(fork, "a"), 0o700), names: /\("a", "large", "new"\)/ },
  rename: {
    change: ({ fork }) => fs.renameSync(path.join(fork, "new"), path.join(fork, "newer")),
    names: /\("a", "large", "newer"\)/,
  },
  "new file": { change: ({ write }) => write("other", "new"), names: /\("a", "large", "newer", "other"\)/ },
  "deleted file": { change: ({ fork }) => fs.rmSync(path.join(fork, "newer")), names: /\("a", "large", "other"\)/ },
  "saved fork": { change: ({ fork }) => cairnOk(["save", fork]), names: /0 changed entries and remove 2 points/ },
  "pinned point": { change: ({ fork }) => cairnOk(["pin", "-C", fork, "head"]), names: /remove 2 points/ },
  "folder moved away": { change: ({ fork }) => fs.renameSync(fork, `${fork}-away`), names: /forget a missing folder/ },
};

test("a plan of fork --remove is refused and nothing is done after each change of the fork", () => {
  const at = forked();
  for (const [name, { change, names }] of Object.entries(CHANGED_FORKS)) {
    const { id } = planOfFork(at);
    change(at);
    const isThere = fs.existsSync(at.fork);
    const state = (): unknown[] => [isThere && readFolder(at.fork), idsOf(at.folder), isThere && idsOf(at.fork)];
    const before = state();
    const refused = removal(at, "--apply", id);
    assertStale(refused, names);
    assert.deepEqual(state(), before, name);
    assert.match(refused.error!.hint!, new RegExp(planOfFork(at).id.slice(0, 8)), name);
  }
  assert.equal(removal(at, "--apply", planOfFork(at).id).status, 0);
});

test("a plan of fork --remove is applied as shown, also after a touch and after points of the original", () => {
  const at = forked();
  const plan = planOfFork(at);
  assert.deepEqual(
    plan.entries!.map(({ path: each, change }) => [each, change]),
    [
      ["a", "modified"],
      ["new", "added"],
    ],
  );
  assert.deepEqual(plan.save_point_ids, idsOf(at.fork));
  fs.utimesSync(path.join(at.fork, "a"), 1, 1);
  at.write("new", "two");
  fs.writeFileSync(path.join(at.folder, "a"), "of the original");
  cairnOk(["save", at.folder]);
  const done = removal(at, "--apply", plan.id);
  assert.equal(done.status, 0, done.stdout);
  assert.equal(fs.existsSync(at.fork), false);
  const kept = done.data["save_point_id"] as string;
  assert.equal(
    cairnOk(["show", "-C", at.folder, `${kept}:a`]).data["content_b64"],
    Buffer.from("two").toString("base64"),
  );
});

test("a plan of fork --remove lists ignored entries if they are to be saved, and refuses them else", () => {
  const at = forked();
  at.write(".cairnignore", "cache\n");
  cairnOk(["save", at.fork]);
  at.write("cache", "one");
  assert.equal(removal(at, "--plan").error!.code, "refused");
  const plan = planOfFork(at, "--allow", "ignored");
  assert.deepEqual(
    plan.entries!.map((each) => each.path),
    ["cache"],
  );
  at.write("cache", "two");
  assertStale(removal(at, "--allow", "ignored", "--apply", plan.id), /1 changed entry \("cache"\)/);
  assert.equal(removal(at, "--allow", "ignored", "--apply", planOfFork(at, "--allow", "ignored").id).status, 0);
});

test("a plan of fork --remove holds for a database that a killed program left with a log", () => {
  const at = forked();
  const place = path.join(at.fork, "db");
  const made = spawnSync(process.execPath, ["-e", LEAVES_A_LOG, place], { encoding: "utf8" });
  assert.equal(made.signal, "SIGKILL", made.stderr);
  assert.ok(fs.statSync(`${place}-wal`).size > 0);
  const { id } = planOfFork(at);
  const done = removal(at, "--apply", id);
  assert.equal(done.status, 0, done.stdout);
});

const LEAVES_A_LOG = `
  const { DatabaseSync } = require("node:sqlite");
  const db = new DatabaseSync(process.argv[1]);
  db.exec("PRAGMA journal_mode = wal; CREATE TABLE t (a); INSERT INTO t VALUES (1)");
  process.kill(process.pid, "SIGKILL");
`;

test("an edit while the removal of a fork runs keeps the fork, since the plan did not show it", async () => {
  const at = forked();
  const { id } = planOfFork(at);
  const args = ["-C", at.folder, "fork", "--remove", at.fork, "--apply", id];
  const { status, error, stdout } = await whilePaused("fork.taken-over", args, () => at.write("late", "late"));
  assert.deepEqual([status, error?.code], [4, "stale_plan"], stdout);
  assert.match(error!.message, /late.*; the fork stays/);
  assert.equal(fs.readFileSync(path.join(at.fork, "late"), "utf8"), "late");
});

interface Released {
  id: string;
  save_point_ids: string[];
  control_directory_goes: boolean;
}

const released = (folder: string, ...more: string[]): Outcome => cairn(["release", folder, "--delete-points", ...more]);
const planOfRelease = (folder: string): Released => released(folder, "--plan").data["plan"] as unknown as Released;

/** In this order, each beside those before it. */
const CHANGED_RELEASES: Readonly<Record<string, { change(folder: string): void; names: RegExp }>> = {
  "a new point": {
    change(folder) {
      fs.writeFileSync(path.join(folder, "a"), "three");
      cairnOk(["save", folder]);
    },
    names: /delete the whole control directory with 3 points now, the newest [0-9a-f]{8}/,
  },
  "a removed point": {
    change: (folder) => cairnOk(["cleanup", "-C", folder, "drop", "head~2"]),
    names: /with 2 points now/,
  },
  "a pinned point": { change: (folder) => cairnOk(["pin", "-C", folder, "head~1"]), names: /with 2 points now/ },
  "a new tag": { change: (folder) => cairnOk(["tag", "-C", folder, "head", "release"]), names: /with 2 points now/ },
  "a fork in the control directory": {
    change: (folder) => cairnOk(["fork", "-C", folder, "head", `${folder}-fork`]),
    names: /delete the workspace with 2 points now/,
  },
};

function withTwoPoints(): string {
  const folder = newFolder("planned-release");
  for (const content of ["one", "two"]) {
    fs.writeFileSync(path.join(folder, "a"), content);
    cairnOk(["save", folder]);
  }
  return folder;
}

test("a plan of release --delete-points is refused and nothing is done after each change of the points", () => {
  const folder = withTwoPoints();
  for (const [name, { change, names }] of Object.entries(CHANGED_RELEASES)) {
    const { id } = planOfRelease(folder);
    change(folder);
    const before = idsOf(folder);
    assertStale(released(folder, "--apply", id), names);
    assert.deepEqual(idsOf(folder), before, name);
  }
  assert.equal(released(folder, "--apply", planOfRelease(folder).id).status, 0);
});

test("a plan of release --delete-points is applied as shown, also after an edit", () => {
  const folder = withTwoPoints();
  const plan = planOfRelease(folder);
  assert.deepEqual([plan.save_point_ids, plan.control_directory_goes], [idsOf(folder), true]);
  fs.writeFileSync(path.join(folder, "a"), "three");
  const done = released(folder, "--apply", plan.id).data;
  assert.equal(done["points_deleted"], 2);
  const control = (done["workspace"] as { control_directory: string }).control_directory;
  assert.equal(fs.existsSync(control), false);
  assert.equal(fs.readFileSync(path.join(folder, "a"), "utf8"), "three");
  assert.notEqual(released(folder, "--plan").status, 0);
  assert.equal(released(folder, "--apply", plan.id).error!.code, "not_a_workspace");
});

test("plans of fork and release need the option that removes", () => {
  const at = forked();
  for (const line of [
    ["release", at.folder, "--plan"],
    ["release", at.folder, "--apply", "0"],
    ["fork", "-C", at.folder, "head", `${at.fork}-2`, "--plan"],
    ["fork", "-C", at.folder, "head", `${at.fork}-2`, "--apply", "0"],
  ])
    assert.equal(cairn(line).status, 2, line.join(" "));
  assert.equal(fs.existsSync(`${at.fork}-2`), false);
});
