import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairnOk, type Outcome } from "../fixtures/command.ts";
import { backup, newRepository, type TestRepository, tryBackup } from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";

/** Removals of snapshots, packs, forks and points are done exactly as their plans showed them, or not at all. */

/** Asserts that an outcome is the refusal of a stale plan; its message matches `names`. */
function assertStale({ status, error, stdout, stderr }: Outcome, names: RegExp): void {
  assert.deepEqual([status, error?.code], [4, "stale_plan"], stdout + stderr);
  assert.match(error!.message, names);
  assert.match(error!.message, /; nothing was changed$/);
}

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

const CHANGED_LISTS: Readonly<Record<string, { change(at: Backups, ids: string[]): string; names: RegExp }>> = {
  "a new snapshot": { change: ({ add }) => add("new"), names: /would remove 2 snapshots .* keep 2 snapshots \(NAME,/ },
  "a removed snapshot that was kept": {
    change({ place }, [, , newest]) {
      backup(place, "forget", newest!);
      return newest!;
    },
    names: /would remove no snapshot and keep 2 snapshots/,
  },
  "a removed snapshot that was to go": {
    change({ place }, [first]) {
      backup(place, "forget", first!);
      return first!;
    },
    names: /would remove no snapshot and keep 2 snapshots/,
  },
  "a new tag, which changes an id": {
    change({ place }, [, , newest]) {
      const { tagged } = backup(place, "tag", newest!, "--add", "release").data as { tagged: { new_id: string }[] };
      return tagged[0]!.new_id;
    },
    names: /keep 2 snapshots \(NAME,/,
  },
};

for (const [name, { change, names }] of Object.entries(CHANGED_LISTS))
  test(`a plan of backup forget is refused and nothing is done after: ${name}`, async () => {
    const at = await backups();
    const ids = ["one", "two", "three"].map(at.add);
    const { plan_id: plan, groups } = backup(at.place, "forget", ...KEEP, "--plan").data as {
      plan_id: string;
      groups: { snapshots: { snapshot_id: string; keep: boolean }[] }[];
    };
    assert.deepEqual(
      groups.flatMap(({ snapshots }) => snapshots).filter(({ keep }) => !keep),
      groups.flatMap(({ snapshots }) => snapshots).filter(({ snapshot_id: id }) => id === ids[0]),
    );
    const named = change(at, ids);
    const before = filesOf(at.place);
    const refused = tryBackup(at.place, "forget", ...KEEP, "--apply", plan);
    assertStale(refused, new RegExp(names.source.replace("NAME", named.slice(0, 8))));
    assert.deepEqual(filesOf(at.place), before);
    const again = backup(at.place, "forget", ...KEEP, "--plan").data["plan_id"] as string;
    assert.notEqual(again, plan);
    assert.match(refused.error!.hint!, new RegExp(again.slice(0, 8)));
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

const CHANGED_PACKS: Readonly<Record<string, { change(at: Backups, ids: string[]): void; names: RegExp }>> = {
  "a snapshot was forgotten": {
    change: ({ place }, [, second]) => void backup(place, "forget", second!),
    names: /would (mark|free|rewrite) \d+ packs? \([0-9a-f]{8}/,
  },
  "another prune ran": {
    change: ({ place }) => void backup(place, "prune", "--instant"),
    names: /would change no pack now/,
  },
};

for (const how of [[], ["--instant"]])
  for (const [name, { change, names }] of Object.entries(CHANGED_PACKS))
    test(`a plan of backup prune ${how.join(" ")} is refused and nothing is done after: ${name}`, async () => {
      const at = await backups();
      const ids = ["one", "two", "three"].map(at.add);
      backup(at.place, "forget", ids[0]!);
      const { id } = planOfPrune(at, ...how);
      change(at, ids);
      const before = filesOf(at.place);
      assertStale(tryBackup(at.place, "prune", ...how, "--apply", id), names);
      assert.deepEqual(filesOf(at.place), before);
      assert.notEqual(planOfPrune(at, ...how).id, id);
    });

test("a plan of backup prune is applied as shown, also after a snapshot came", async () => {
  const at = await backups();
  const ids = ["one", "two", "three"].map(at.add);
  backup(at.place, "forget", ids[0]!);
  const planned = planOfPrune(at, "--instant");
  assert.ok(planned.packs.free.length + planned.packs.rewrite.length > 0);
  at.add("four");
  assert.deepEqual(planOfPrune(at, "--instant"), planned);
  const before = packsIn(at.place);
  const done = backup(at.place, "prune", "--instant", "--apply", planned.id).data;
  const { free, rewrite } = planned.packs;
  assert.deepEqual([done["removed_packs"], done["repacked_packs"]], [free.length, rewrite.length]);
  const gone = before.filter((pack) => !packsIn(at.place).includes(pack));
  assert.deepEqual(gone.toSorted(), [...free, ...rewrite].toSorted());
});

test("a plan of backup prune marks the packs that it named, and its options are part of it", async () => {
  const at = await backups();
  const ids = ["one", "two", "three"].map(at.add);
  backup(at.place, "forget", ids[0]!);
  const { id, packs } = planOfPrune(at);
  const before = filesOf(at.place);
  assertStale(tryBackup(at.place, "prune", "--instant", "--apply", id), /would free \d+ packs?/);
  assert.deepEqual(filesOf(at.place), before);
  const done = backup(at.place, "prune", "--apply", id).data;
  assert.deepEqual([done["marked_packs"], done["merged_packs"]], [packs.mark.length, 0]);
  assert.deepEqual(planOfPrune(at).packs, { mark: [], free: [], rewrite: [] });
});
