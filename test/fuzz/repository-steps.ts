import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { randomBytes } from "node:crypto";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { readEntries } from "../fixtures/folder-state.ts";
import { filesOf, restic, resticEnvironment, runOn } from "../fixtures/repository.ts";
import { eventually } from "../fixtures/eventually.ts";
import { damage } from "./repository-damage.ts";
import type { OracleSnapshot, RepositoryWorld } from "./repository-world.ts";
import type { Step, StepPlace } from "./walk.ts";

/** Everything that is done to a repository, with what must be so afterwards; that every snapshot holds what it must is asked after each. */

function backUp(world: RepositoryWorld, at: StepPlace): void {
  const folder = at.chance.oneIn(4) ? at.chance.pick(world.folders) : world.edit(at);
  const entries = readEntries(folder);
  const isOurs = at.chance.oneIn(2);
  if (isOurs) {
    const skip = at.chance.oneIn(5) ? ["--skip-unchanged"] : [];
    const { data } = cairnOk(["backup", "create", ...world.main.place.options, folder, ...skip]);
    at.note("cairn");
    assert.ok(data["snapshot"] !== null || skip.length > 0);
  } else {
    restic(world.main.place, "backup", "-q", folder, ...(at.chance.oneIn(5) ? ["--force"] : []));
    at.note("restic");
  }
  world.main.takeNew(() => ({ by: isOurs ? "cairn" : "restic", folder, entries }));
}

/** Some that go, so that some stay. */
function going(world: RepositoryWorld, { chance }: StepPlace): OracleSnapshot[] {
  const { snapshots } = world.main;
  if (snapshots.length < 3) return [];
  return [...new Set(Array.from({ length: 1 + chance.below(2) }, () => chance.pick(snapshots)))];
}

function forget(world: RepositoryWorld, at: StepPlace): void {
  const gone = going(world, at);
  if (gone.length === 0) return;
  const ids = gone.map(({ id }) => id);
  const by = at.chance.pick(["cairn", "cairn, and prune", "restic"]);
  at.note(`${ids.length} by ${by}`);
  if (by === "restic") restic(world.main.place, "forget", ...ids);
  else cairnOk(["backup", "forget", ...world.main.place.options, ...ids, ...(by === "cairn" ? [] : ["--prune"])]);
  world.main.snapshots = world.main.snapshots.filter((each) => !gone.includes(each));
}

function prune(world: RepositoryWorld, { chance, note }: StepPlace): void {
  const { place, reader, snapshots } = world.main;
  if (chance.oneIn(3)) {
    note("restic");
    restic(place, "prune", ...chance.pick([[], ["--max-unused", "0"], ["--repack-small"]]));
    return;
  }
  const unused = chance.pick(["0", "0", "5", "50"]);
  const looks = chance.pick(["twice", "once"]);
  note(`cairn, ${unused} %, looks ${looks}`);
  const asked = ["backup", "prune", ...place.options, "--max-unused", unused, ...world.main.emptyAllowed()];
  const { data } = cairnOk(looks === "once" ? [...asked, "--instant"] : asked);
  if (looks === "twice") return;
  // A prune keeps for a day what snapshots need that restic or a killed command removed.
  if (unused !== "0" || (data["missing_snapshots"] as unknown[]).length > 0) return;
  const state = reader.state();
  const needed = state.needed(snapshots.map(({ id }) => reader.snapshot(id).tree));
  assert.deepEqual(
    [...state.places.keys()].filter((key) => !needed.has(key)),
    [],
    "unused blobs",
  );
  assert.deepEqual(
    [...state.places].filter(([, places]) => places.length > 1),
    [],
    "blobs that are stored twice",
  );
  assert.deepEqual([...state.packs].toSorted(), [...state.listed].toSorted(), "packs that no index lists");
}

function copy(world: RepositoryWorld, { chance, note }: StepPlace): void {
  const { main, other } = world;
  if (main.snapshots.length === 0) return;
  const some = [...new Set([chance.pick(main.snapshots), chance.pick(main.snapshots)])];
  const ids = some.map(({ id }) => id);
  const words = [...main.place.options, "--to", other.place.location, "--to-password-file", other.place.passwordFile];
  const isOurs = chance.oneIn(2);
  note(`${ids.length} by ${isOurs ? "cairn" : "restic"}`);
  if (isOurs) cairnOk(["backup", "copy", ...words, ...ids]);
  else
    runOn(other.place, "restic", [
      "copy",
      "--from-repo",
      main.place.location,
      "--from-password-file",
      main.place.passwordFile,
      ...ids,
    ]);
  const ofTree = new Map(some.map((each) => [main.reader.snapshot(each.id).tree, each]));
  other.takeNew((tree) => ofTree.get(tree)!);
  for (const tree of ofTree.keys())
    assert.ok(
      other.snapshots.some(({ id }) => other.reader.snapshot(id).tree === tree),
      "a snapshot was not copied",
    );
  const again = cairnOk(["backup", "copy", ...words, ...ids]).data["copied"];
  assert.deepEqual(again, [], "copied again");
}

function repair(world: RepositoryWorld, { chance, note }: StepPlace): void {
  const { place } = world.main;
  const what = chance.pick(["index", "packs", "snapshots", "restic"]);
  note(what);
  if (what === "restic") {
    restic(place, "rebuild-index", ...(chance.oneIn(2) ? ["--read-all-packs"] : []));
    return;
  }
  const { data } = cairnOk(["backup", "repair", what, ...place.options]);
  for (const word of ["repaired", "unreadable", "dropped_packs", "lost_blobs", "damaged_indexes", "unreadable_packs"])
    assert.deepEqual(data[word] ?? [], [], word);
}

/** Both say the same of what a snapshot holds. */
function stats({ main }: RepositoryWorld, { chance }: StepPlace): void {
  const { id } = chance.pick(main.snapshots) ?? {};
  if (id === undefined) return;
  const ours = cairnOk(["backup", "stats", ...main.place.options, id]).data["selection"] as Record<string, number>;
  const theirs = (mode: string): Record<string, number> =>
    JSON.parse(restic(main.place, "stats", "--mode", mode, "--json", id)) as Record<string, number>;
  const { total_size: stored, total_blob_count: blobs } = theirs("raw-data");
  assert.deepEqual([ours["stored_bytes"], ours["data_blobs"]! + ours["tree_blobs"]!], [stored, blobs]);
  assert.equal(ours["bytes"], theirs("restore-size")["total_size"]);
}

type Killed = "create" | "forget" | "prune" | "copy";

/** One of Cairn's commands ends at a failpoint; the next meets what it left, and needs nothing else for it. */
function kill(world: RepositoryWorld, at: StepPlace): void {
  const { chance, note } = at;
  const { main, other } = world;
  const verb = chance.pick<Killed>(["create", "create", "create", "forget", "prune", "prune", "copy"]);
  const folder = verb === "create" ? world.edit(at) : world.folders[0]!;
  const entries = readEntries(folder);
  const gone = verb === "forget" ? going(world, at) : [];
  const words: Record<Killed, string[]> = {
    create: [folder],
    forget: ["--prune", ...gone.map(({ id }) => id)],
    prune: ["--max-unused", "0", ...(verb === "prune" ? main.emptyAllowed() : [])],
    copy: ["--to", other.place.location, "--to-password-file", other.place.passwordFile],
  };
  if (verb === "forget" && gone.length === 0) return;
  const args = ["backup", verb, ...main.place.options, ...words[verb]];
  const done = cairn(args, { failpoint: `#${1 + chance.below(verb === "create" ? 40 : 12)}` });
  note(`${verb}: ${done.killed ? `killed at ${done.failpoints.at(-1)}` : "to its end"}`);
  assert.ok(done.killed || done.status === 0, `${args.join(" ")}: ${done.status} ${done.stdout} ${done.stderr}`);
  const left = new Set(main.reader.snapshotIds());
  for (const each of gone) if (!done.killed) assert.ok(!left.has(each.id), "a forgotten snapshot is there");
  main.snapshots = main.snapshots.filter((each) => !gone.includes(each) || left.has(each.id));
  const made = main.takeNew(() => ({ by: "cairn", folder, entries }));
  if (!done.killed && verb === "create") assert.equal(made.length, 1);
  const ofTree = new Map(main.snapshots.map((each) => [main.reader.snapshot(each.id).tree, each]));
  other.takeNew((tree) => ofTree.get(tree)!);
  afterKill(world, at);
}

/** Whatever comes next does its work; then locks of the dead are gone, by restic's own word. */
function afterKill({ main, other }: RepositoryWorld, { chance, note }: StepPlace): void {
  const next = chance.pick([
    ["list"],
    ["prune"],
    ["stats"],
    ["verify", "--subset", "none"],
    ["repair", "index", "--plan"],
  ]);
  note(next.join(" "));
  cairnOk(["backup", ...next, ...(next[0] === "prune" ? main.emptyAllowed() : []), ...main.place.options]);
  for (const { place } of [main, other]) restic(place, "unlock");
}

/** restic dies in the middle of a backup: its lock stays, and what it has stored already. */
async function killRestic(world: RepositoryWorld, at: StepPlace): Promise<void> {
  const { main } = world;
  const child = spawn("restic", ["backup", "--stdin", "-q"], {
    env: resticEnvironment(main.place),
    stdio: ["pipe", "ignore", "ignore"],
  });
  child.stdin.on("error", () => undefined);
  child.stdin.write(randomBytes(3 << 20));
  // It reads until the end of what it is given, which does not come.
  await eventually("restic's lock", () => filesOf(main.place, "locks").length > 0);
  child.kill("SIGKILL");
  await once(child, "exit");
  afterKill(world, at);
}

export const REPOSITORY_STEPS: readonly Step<RepositoryWorld>[] = [
  { name: "back up", weight: 14, run: backUp },
  { name: "forget", weight: 5, run: forget },
  { name: "prune", weight: 5, run: prune },
  { name: "check", weight: 2, run: ({ main }) => main.assertWell() },
  { name: "copy", weight: 3, run: copy },
  { name: "repair", weight: 3, run: repair },
  { name: "stats", weight: 2, run: stats },
  { name: "kill", weight: 7, run: kill },
  { name: "kill restic", weight: 1, run: killRestic },
  { name: "damage", weight: 4, run: damage },
];
