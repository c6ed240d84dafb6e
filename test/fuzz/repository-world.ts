import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { type Entries, type Entry, readEntries } from "../fixtures/folder-state.ts";
import {
  filesOf,
  newRepository,
  passwordOf,
  restic,
  resticRepository,
  type TestRepository,
} from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";
import { editFolder } from "./edits.ts";
import { RepositoryReader } from "./repository-reader.ts";
import type { Chance, StepPlace } from "./walk.ts";
import { differences } from "./workspace-oracle.ts";

/** What a snapshot must hold. */
export interface OracleSnapshot {
  id: string;
  by: "cairn" | "restic";
  folder: string;
  entries: Entries;
}

/** A repository, and what must be in it. */
export class FuzzedRepository {
  readonly place: TestRepository;
  readonly reader: RepositoryReader;
  snapshots: OracleSnapshot[] = [];

  constructor(place: TestRepository) {
    this.place = place;
    this.reader = new RepositoryReader(place.location, passwordOf(place));
  }

  /** Takes over what is there and was not, as of that folder or of what has the same tree. */
  takeNew(holds: (tree: string) => Omit<OracleSnapshot, "id">): OracleSnapshot[] {
    const known = new Set(this.snapshots.map(({ id }) => id));
    const fresh = this.reader.snapshotIds().filter((id) => !known.has(id));
    const made = fresh.map((id) => ({ ...holds(this.reader.snapshot(id).tree), id }));
    this.snapshots.push(...made);
    return made;
  }

  /** Every snapshot that was acknowledged, and no other, is there and holds what it must. */
  assertSnapshots(): void {
    assert.deepEqual(this.reader.snapshotIds(), this.snapshots.map(({ id }) => id).toSorted(), "snapshots");
    const state = this.reader.state();
    for (const each of this.snapshots) this.assertHeld(each, state);
  }

  assertHeld({ id, by, folder, entries }: OracleSnapshot, state = this.reader.state()): void {
    const held = state.entries(this.reader.snapshot(id), folder);
    none(differences(filesLinked(held), filesLinked(entries)), `snapshot ${id.slice(0, 8)} by ${by}`);
  }

  /** Nobody's lock is left. */
  assertUnlocked(): void {
    assert.deepEqual(filesOf(this.place, "locks"), [], "locks");
  }

  /** What a prune needs if damage or a killed backup left no snapshot; without it the prune must refuse. */
  emptyAllowed(): string[] {
    if (this.reader.snapshotIds().length > 0 || filesOf(this.place, "data").length === 0) return [];
    assert.equal(cairn(["backup", "prune", ...this.place.options]).status, 7, "a prune removed every pack unasked");
    return ["--allow", "empty"];
  }

  /** Both programs read everything and find it well. */
  assertWell(): void {
    const { problems } = cairnOk(["backup", "verify", ...this.place.options]).data as {
      problems: { severity: string }[];
    };
    assert.deepEqual(
      problems.filter(({ severity }) => severity === "damage"),
      [],
    );
    restic(this.place, "check", "--read-data", "--no-cache");
  }

  /** A restore by one of the programs into an empty folder gives what was backed up. */
  assertRestored(snapshot: OracleSnapshot, by: "cairn" | "restic"): void {
    const to = newFolder("restored");
    fs.rmdirSync(to);
    if (by === "cairn") cairnOk(["backup", "restore", snapshot.id, ...this.place.options, "--to", to]);
    else restic(this.place, "restore", "--no-lock", snapshot.id, "--target", to);
    // Cairn puts the folder that it saved there, and of others' snapshots what they have from the top.
    const isWhole = by === "restic" || snapshot.by === "restic";
    const restored = readEntries(isWhole ? path.join(to, snapshot.folder) : to);
    const like = (entries: Entries): Entries =>
      by === "restic" ? loosened(entries) : isWhole ? filesLinked(entries) : entries;
    const said = `restore of ${snapshot.by}'s ${snapshot.id.slice(0, 8)} by ${by}`;
    none(differences(like(restored), like(snapshot.entries)), said);
    fs.rmSync(to, { recursive: true });
  }

  /** Of a snapshot that lacks something: what comes is what it was, and it is said that not all came. */
  assertRestoredPart({ id, by, folder, entries }: OracleSnapshot): void {
    const to = newFolder("restored");
    fs.rmdirSync(to);
    const { status, stdout } = cairn(["backup", "restore", id, ...this.place.options, "--to", to]);
    assert.ok(status === 6 || status === 10, `restore of what lacks something: ${status} ${stdout}`);
    const root = by === "restic" ? path.join(to, folder) : to;
    if (fs.existsSync(root)) none(falseFiles(readEntries(root), entries), "a restore of what lacks something");
    fs.rmSync(to, { recursive: true, force: true });
  }
}

/** Files of it that are not as they were. */
function falseFiles(restored: Entries, wanted: Entries): string[] {
  const isFalse = ([name, { type, content }]: [string, Entry]): boolean =>
    wanted.get(name)?.type !== type || wanted.get(name)!.content !== content;
  return [...restored].filter(isFalse).map(([name]) => `${JSON.stringify(name)} is not what it was`);
}

/** In restic's trees only files have several names; Cairn has the others' in the manifest. */
function filesLinked(entries: Entries): Entries {
  return new Map(
    [...entries].map(([name, entry]) => [name, entry.type === "file" ? entry : { ...entry, inode: name }]),
  );
}

/** Restic 0.14 sets no times of links, and those of directories before all is in them. */
function loosened(entries: Entries): Entries {
  const hasNoTime = ({ type }: Entry): boolean => type === "dir" || type === "link";
  return new Map(
    [...filesLinked(entries)].map(([name, entry]) => [name, hasNoTime(entry) ? { ...entry, mtime: 0n } : entry]),
  );
}

/** Folders, a repository of them that Cairn and restic use by turns, and another that it is copied to. */
export class RepositoryWorld {
  readonly folders: readonly string[];
  readonly main: FuzzedRepository;
  readonly other: FuzzedRepository;
  #turn = 0;

  constructor(main: FuzzedRepository, other: FuzzedRepository) {
    [this.main, this.other] = [main, other];
    this.folders = [newFolder("source"), newFolder("source")];
  }

  static async make(chance: Chance): Promise<RepositoryWorld> {
    // The key of a repository that restic made costs each command half a second.
    const place = chance.oneIn(5) ? resticRepository(1) : await newRepository();
    const world = new RepositoryWorld(new FuzzedRepository(place), new FuzzedRepository(await newRepository("copies")));
    for (const folder of world.folders) for (let i = 0; i < 12; i++) editFolder(folder, chance, new Set(["plain"]));
    return world;
  }

  edit({ chance, note }: StepPlace): string {
    const folder = chance.pick(this.folders);
    for (let i = chance.below(6); i >= 0; i--) note(editFolder(folder, chance, new Set(["plain"])));
    return folder;
  }

  /** After each step: all snapshots by a reader of its own, one of them by one of the programs. */
  assertAll(): void {
    for (const repository of [this.main, this.other]) {
      repository.assertSnapshots();
      repository.assertUnlocked();
    }
    const { snapshots } = this.main;
    if (snapshots.length === 0) return;
    this.#turn++;
    const [by, index] = [this.#turn % 2 === 0 ? "cairn" : "restic", Math.floor(this.#turn / 2)] as const;
    this.main.assertRestored(snapshots[index % snapshots.length]!, by);
  }

  assertEnd(): void {
    for (const repository of [this.main, this.other]) {
      repository.assertWell();
      for (const snapshot of repository.snapshots) repository.assertRestored(snapshot, "cairn");
    }
  }

  end(): void {
    for (const place of [...this.folders, this.main.place.location, this.other.place.location])
      fs.rmSync(place, { recursive: true, force: true });
  }
}

/** Fails with the lines, if there are any. */
export function none(lines: readonly string[], what: string): void {
  assert.ok(lines.length === 0, `${what}:\n${lines.join("\n")}`);
}
