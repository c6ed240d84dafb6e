import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { Client, RestoreResult } from "../../src/contract/index.ts";
import { LONG } from "../fixtures/long.ts";
import { cairnLibrary, newFolder } from "../fixtures/work.ts";
import { type Chance, shownTaken, takeWalk, type Step, addTaken, type Taken, walksOf } from "./walk.ts";

/** Walks of restores, undos and redos with edits in between, against a model of files. */

type Files = ReadonlyMap<string, string>;

interface Revert {
  /** State to go to, and the state that the operation left. */
  before: Files;
  left: Files;
  /** Files that the operation changed. */
  changed: ReadonlySet<string>;
}

const NAMES = ["a", "b", "c", "d/a", "d/b", "e/f/a", "e/f/b"];
/** Keep the directories where they are: what becomes of those has tests of its own. */
const KEEPERS = ["d/.keep", "e/f/.keep"];

class UndoWorld {
  readonly folder = newFolder("undo");
  client!: Client;
  points: { id: string; files: Files }[] = [];
  done: Revert[] = [];
  undone: Revert[] = [];
  files = new Map<string, string>();

  static async make(): Promise<UndoWorld> {
    const world = new UndoWorld();
    for (const name of KEEPERS) world.write(name, "");
    world.client = await (await cairnLibrary()).init(world.folder);
    await world.save();
    return world;
  }

  write(name: string, content: string | null): void {
    const file = path.join(this.folder, name);
    if (content === null) {
      fs.rmSync(file);
      this.files.delete(name);
      return;
    }
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, content);
    this.files.set(name, content);
  }

  async save(): Promise<void> {
    const { save_point_id: id } = await this.client.save();
    this.points.push({ id, files: new Map(this.files) });
  }

  read(): Files {
    const found = fs.readdirSync(this.folder, { recursive: true, encoding: "utf8" });
    const names = found.filter((name) => fs.statSync(path.join(this.folder, name)).isFile());
    return new Map(names.map((name) => [name, fs.readFileSync(path.join(this.folder, name), "utf8")]));
  }

  /** Takes an undo or redo in the model. Returns the files that were edited since and stay. */
  revert({ before, left, changed }: Revert, over: boolean): string[] {
    const stay: string[] = [];
    for (const name of changed) {
      const [now, wanted] = [this.files.get(name), before.get(name)];
      // An undo that kept the file left nothing of it to redo.
      if (now === wanted || wanted === left.get(name)) continue;
      if (!over && now !== left.get(name)) stay.push(name);
      else if (wanted === undefined) this.files.delete(name);
      else this.files.set(name, wanted);
    }
    return stay.toSorted();
  }

  check(): void {
    const sorted = (files: Files): [string, string][] => [...files].toSorted(([a], [b]) => (a < b ? -1 : 1));
    assert.deepEqual(sorted(this.read()), sorted(this.files));
  }
}

function edit(world: UndoWorld, { chance, note }: { chance: Chance; note: (text: string) => void }): void {
  const name = chance.pick(NAMES);
  const isGone = world.files.has(name) && chance.oneIn(3);
  // Of two lengths, so that a file changes and comes back.
  world.write(name, isGone ? null : chance.pick(["one", "two", "three", "four"]));
  note(`${name} ${world.files.get(name) ?? "removed"}`);
}

const STEPS: readonly Step<UndoWorld>[] = [
  { name: "edit", weight: 8, run: edit },
  { name: "save", weight: 3, run: async (world) => world.save() },
  {
    name: "restore",
    weight: 4,
    async run(world, { chance, note }) {
      const { id, files } = chance.pick(world.points);
      const all = [...new Set([...world.files.keys(), ...files.keys()])];
      const some = chance.oneIn(2) ? all.filter(() => chance.oneIn(2)) : all;
      if (some.length === 0) return;
      const paths = some.length === all.length ? {} : { paths: some };
      note(`${id.slice(0, 8)} ${JSON.stringify(paths)}`);
      const before = new Map(world.files);
      const { head } = await world.client.status();
      const { undo_id: undo } = await world.client.restore({ target: id, ...paths });
      const changed = new Set(some.filter((name) => before.get(name) !== files.get(name)));
      for (const name of changed) {
        if (files.has(name)) world.files.set(name, files.get(name)!);
        else world.files.delete(name);
      }
      // A restore that changes nothing is no operation, unless head moves.
      if (undo === null && (await world.client.status()).head === head) return;
      world.done.push({ before, left: new Map(world.files), changed });
      world.undone = [];
    },
  },
  { name: "undo", weight: 5, run: async (world, at) => revert(world, at, "undo") },
  { name: "redo", weight: 3, run: async (world, at) => revert(world, at, "redo") },
];

async function revert(
  world: UndoWorld,
  { chance, note }: { chance: Chance; note: (text: string) => void },
  verb: "undo" | "redo",
): Promise<void> {
  const [from, to] = verb === "undo" ? [world.done, world.undone] : [world.undone, world.done];
  const top = from.at(-1);
  const over = chance.oneIn(4);
  if (top === undefined) return assert.rejects(world.client[verb]({ over }), { code: "nothing_to_undo" });
  const before = new Map(world.files);
  const stay = world.revert(top, over);
  const done: RestoreResult = await world.client[verb]({ over });
  note(`${over ? "over " : ""}keeps ${JSON.stringify(stay)}`);
  assert.deepEqual(done.left_out.map(({ path: name }) => name).toSorted(), stay);
  assert.ok(done.left_out.every(({ reason }) => reason === "changed_since"));
  // If all was edited since, nothing was undone.
  if (done.undo_id === null && stay.length > 0) return;
  from.pop();
  to.push({ before, left: new Map(world.files), changed: top.changed });
}

test("undo and redo step through all operations, and lose no edit made in between", async (t) => {
  const { seeds, steps: count } = walksOf({
    seeds: Array.from({ length: LONG ? 200 : 7 }, (_none, i) => i + 1),
    steps: 40,
  });
  const all: Taken = new Map();
  for (const seed of seeds) {
    const world = await UndoWorld.make();
    const again = `CAIRN_FUZZ_SEED=${seed} CAIRN_FUZZ_STEPS=${count} node --test test/fuzz/undo.flow.test.ts`;
    const check = (): void => world.check();
    addTaken(all, await takeWalk({ world, steps: STEPS, seed, count, check, end: check, again }));
    await world.client.close();
    fs.rmSync(world.folder, { recursive: true });
  }
  t.diagnostic(shownTaken(all));
});
