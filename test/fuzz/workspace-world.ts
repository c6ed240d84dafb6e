import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import type { CairnLibrary, Client, EngineType } from "../../src/contract/index.ts";
import { type Entries, readEntries } from "../fixtures/folder-state.ts";
import { makeHoldable } from "../fixtures/held-place.ts";
import { cairnLibrary } from "../fixtures/work.ts";
import type { EditSet } from "./editing.ts";
import { editFolder } from "./edits.ts";
import { NO_RULES, type Rules, rulesIn } from "./ignore-rules.ts";
import type { Chance, StepPlace } from "./walk.ts";
import {
  differences,
  DigestTable,
  notRestored,
  type OraclePoint,
  savedEntries,
  undoEntries,
} from "./workspace-oracle.ts";

/** Where a fuzzed workspace lies and what it is made of. */
export interface WorldPlace {
  base: string;
  name: string;
  /** That work there; the workspace begins with the first. */
  engines: readonly [EngineType, ...EngineType[]];
  sets: ReadonlySet<EditSet>;
}

/** Edits before there is a point. */
const BEGIN = 25;

/** A target as a call gets it, and the point that it means. */
export interface Target {
  point: OraclePoint;
  target: string;
}

const digests = new DigestTable();

/** A workspace and what it must be. */
export class WorkspaceWorld {
  readonly place: WorldPlace;
  folder: string;
  library!: CairnLibrary;
  client!: Client;
  /** oldest first */
  points: OraclePoint[] = [];
  head: string | null = null;
  /** what undo goes back to, and by which paths */
  undo: { id: string; paths: readonly string[] | null } | null = null;
  /** what the last restore left; null if undo would go elsewhere */
  left: Entries | null = null;
  #places = 0;

  constructor(place: WorldPlace) {
    this.place = place;
    this.folder = path.join(place.base, place.name);
  }

  static async make(place: WorldPlace, chance: Chance): Promise<WorkspaceWorld> {
    const world = new WorkspaceWorld(place);
    const engineType = place.engines[0];
    // A plain folder on btrfs is converted.
    makeHoldable(world.folder, chance.oneIn(4) ? "copy" : engineType);
    for (let i = 0; i < BEGIN; i++) editFolder(world.folder, chance, place.sets);
    world.library = await cairnLibrary();
    world.client = await world.library.init(world.folder, { engineType, allow: ["holders"] });
    // Points that keep their trees can be exchanged with what is there.
    await world.client.setPolicy({ keptTrees: 100 });
    await world.#saveFirst();
    return world;
  }

  async #saveFirst(): Promise<void> {
    const before = this.now();
    const { save_point_id: id } = await this.client.save();
    const rules = this.rulesNow(before);
    this.points.push({ id, entries: savedEntries(before, rules), rules, kind: "save", pinned: false, tags: [] });
    this.head = id;
  }

  async end(): Promise<void> {
    await this.client.release({ deletePoints: true });
    await this.client.close();
    for (const name of fs.readdirSync(this.place.base))
      if (name.startsWith(this.place.name)) removeTree(path.join(this.place.base, name));
  }

  /** A place beside the folder that nothing has. */
  placeBeside(what: string): string {
    return path.join(this.place.base, `${this.place.name}-${what}${this.#places++}`);
  }

  now(): Entries {
    return readEntries(this.folder);
  }

  rulesNow(entries: Entries, excludes: readonly string[] = []): Rules {
    return rulesIn(this.folder, entries, excludes);
  }

  edit({ chance, note }: StepPlace): void {
    for (let i = chance.below(6); i >= 0; i--) note(editFolder(this.folder, chance, this.place.sets));
  }

  pointOf(id: string | null): OraclePoint | undefined {
    return this.points.find((point) => point.id === id);
  }

  /** p and its place in the history as a name that is the same whenever a walk is taken again. */
  nameOf(id: string | null): string {
    return id === null ? "none" : `p${this.points.findIndex((point) => point.id === id)}`;
  }

  target({ chance, note }: StepPlace): Target | null {
    const known = this.points.filter(({ isOpaque }) => isOpaque !== true);
    if (known.length === 0) return null;
    const head = known.find(({ id }) => id === this.head);
    if (head !== undefined && chance.oneIn(5)) {
      note(`head, ${this.nameOf(head.id)}`);
      return { point: head, target: "head" };
    }
    // Those that a restore made have no trees where that went entry by entry.
    const saves = known.filter(({ kind }) => kind === "save");
    const point = chance.pick(saves.length > 0 && chance.oneIn(2) ? saves : known);
    note(this.nameOf(point.id));
    return { point, target: point.id };
  }

  /** The folder is what a restore of that point makes of what it was. */
  assertRestored(point: OraclePoint, before: Entries): void {
    none(notRestored(this.now(), point, before), `after a restore of ${this.nameOf(point.id)}`);
  }

  assertUntouched(before: Entries, what: string): void {
    none(differences(this.now(), before), `${what} changed the folder`);
  }

  /** A restore has made this point of the present; none where it had nothing to do. */
  async addUndo(
    id: string | null,
    of: { before: Entries; target: OraclePoint; paths?: readonly string[] | null },
  ): Promise<void> {
    const { before, target, paths = null } = of;
    this.left = id === null ? null : this.now();
    if (id === null) return this.assertUntouched(before, "a restore of what was there");
    const entries = undoEntries(target, before);
    if (entries === null) await this.#addOpaque(id);
    else this.points.push({ id, entries, rules: target.rules, kind: "undo", pinned: false, tags: [] });
    this.undo = { id, paths };
  }

  /** With the one that was made before it was seen what stands in the way, where that is so. */
  async #addOpaque(undoId: string): Promise<void> {
    const { save_points: all } = await this.client.history(undefined, 0, { all: true });
    const made = all.toReversed().slice(this.points.length);
    assert.ok(made.length <= 2 && made.at(-1)?.save_point_id === undoId, "points of a restore");
    for (const { save_point_id: id } of made) {
      const entries = await this.written(id);
      this.points.push({ id, entries, rules: NO_RULES, kind: "undo", pinned: false, tags: [], isOpaque: true });
    }
  }

  /** What a point gives in a folder of its own, with the digests that it has. */
  async written(id: string, wanted: Entries | null = null): Promise<Entries> {
    const to = this.placeBeside("to");
    const { left_out: leftOut } = await this.client.restore({ target: id, to });
    assert.deepEqual(leftOut, []);
    const entries = readEntries(to);
    if (wanted !== null) none(differences(entries, wanted), `${this.nameOf(id)} in a folder of its own`);
    const walked = walkDigests(to);
    const point = await this.client.resolve(id);
    // What is only held has none.
    if (point.payload_root_hash !== null) {
      assert.equal(point.payload_root_hash, walked.state, "state digest");
      assert.equal(point.metadata_digest, walked.meta, "metadata digest");
      assert.equal(point.entries, entries.size - 1);
      assert.equal(digests.add(entries, walked), null);
    }
    removeTree(to);
    return entries;
  }

  async assertWritten({ id, entries }: OraclePoint): Promise<void> {
    await this.written(id, entries);
  }

  /** Opens the workspace anew, as what was recorded says. */
  async reopen(): Promise<void> {
    await this.client.close();
    this.client = await this.library.open(this.folder);
  }

  /** Of an undo point that equals the point before it, that one. */
  async standsAt(id: string): Promise<string> {
    const { save_points: all } = await this.client.history(undefined, 0, { all: true });
    const { cause, unchanged, parent_id: parent } = all.find((each) => each.save_point_id === id)!;
    const isUndo = ["restore", "undo", "redo"].includes(cause.kind);
    return isUndo && unchanged && all.some((each) => each.save_point_id === parent) ? this.standsAt(parent!) : id;
  }

  async assertHistory(): Promise<void> {
    const { save_points: all, head, latest, damaged } = await this.client.history(undefined, 0, { all: true });
    assert.deepEqual(damaged, []);
    assert.deepEqual(
      all.toReversed().map(({ save_point_id: id, pinned, tags }) => ({ id, pinned, tags: tags.toSorted() })),
      this.points.map(({ id, pinned, tags }) => ({ id, pinned, tags: tags.toSorted() })),
    );
    assert.equal(head, this.head, `head is ${this.nameOf(head)}, wanted ${this.nameOf(this.head)}`);
    assert.equal(latest, this.points.findLast(({ kind }) => kind === "save")?.id ?? null);
  }

  async assertVerified(deep: boolean): Promise<void> {
    const { problems, unverified } = await this.client.verifyAll({ deep });
    assert.deepEqual({ problems, unverified }, { problems: [], unverified: [] });
  }

  async assertHealthy(repair: boolean): Promise<void> {
    const { healthy, findings } = await this.client.doctor({ repair });
    assert.ok(healthy, JSON.stringify(findings));
  }

  /** Each point gives back what it must, and all is well with the store. */
  async assertEverything(): Promise<void> {
    for (const point of this.points) await this.assertWritten(point);
    await this.assertVerified(true);
    await this.assertHealthy(false);
  }
}

/** Fails with the lines, if there are any. */
export function none(lines: readonly string[], what: string): void {
  assert.ok(lines.length === 0, `${what}:\n${lines.join("\n")}`);
}

/** With subvolumes, which only btrfs's program removes where they are write-protected. */
export function removeTree(place: string): void {
  try {
    fs.rmSync(place, { recursive: true, force: true });
  } catch {
    spawnSync("btrfs", ["-q", "subvolume", "delete", place]);
    fs.rmSync(place, { recursive: true, force: true });
  }
}
