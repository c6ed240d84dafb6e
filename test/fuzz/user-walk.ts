import assert from "node:assert/strict";
import fs from "node:fs";
import type { LeftOut } from "../../src/contract/index.ts";
import { cairn, type Outcome } from "../fixtures/command.ts";
import { type Entries, readEntries } from "../fixtures/folder-state.ts";
import type { OrdinaryUser } from "../fixtures/ordinary-user.ts";
import { SOMEBODY } from "./editing.ts";
import { editFolder } from "./edits.ts";
import type { Step, StepPlace } from "./walk.ts";
import { changesBetween, differences, rawPath } from "./workspace-oracle.ts";
import { none } from "./workspace-world.ts";

/**
 * What an ordinary user does in a folder in which others have entries too, and which he may read in part: what he cannot
 * save or restore is listed, and whatever a restore did, its undo loses nothing. Root looks on.
 */
export class UserWorld {
  readonly folder: string;
  readonly #user: OrdinaryUser;
  readonly points: UserPoint[] = [];

  constructor(folder: string, user: OrdinaryUser) {
    [this.folder, this.#user] = [folder, user];
    fs.chownSync(folder, SOMEBODY, SOMEBODY);
  }

  now(): Entries {
    return readEntries(this.folder);
  }

  /** What is new is the user's own. */
  edit({ chance, note }: StepPlace, count: number): void {
    for (let i = 0; i < count; i++) {
      const known = new Set([...this.now().values()].map(({ inode }) => inode));
      note(editFolder(this.folder, chance, new Set(["plain", "rights"])));
      for (const [name, { inode }] of this.now())
        if (!known.has(inode)) fs.lchownSync(Buffer.from(`${this.folder}/${name}`, "latin1"), SOMEBODY, SOMEBODY);
    }
  }

  /** Its outcome: 0, 10, or one of those that say that nothing was done. */
  run(args: readonly string[], refusals: readonly number[] = []): Outcome {
    const done = cairn(["-C", this.folder, ...args], this.#user.optionsIn("/"));
    assert.ok(
      [0, 10, ...refusals].includes(done.status!),
      `${args.join(" ")}: ${done.status} ${done.stdout} ${done.stderr}`,
    );
    return done;
  }
}

interface UserPoint {
  id: string;
  entries: Entries;
  /** Null where it holds everything. */
  leftOut: string[] | null;
}

function leftOutOf({ data }: Outcome): string[] {
  return ((data["left_out"] ?? []) as LeftOut[]).map(rawPath);
}

function isNear(name: string, listed: readonly string[]): boolean {
  return listed.some(
    (each) => name === each || name.startsWith(`${each}/`) || each.startsWith(`${name}/`) || each === "",
  );
}

/** Names of which the content is not there any more, or is another. */
function lostNames(from: Entries, to: Entries): string[] {
  const isLost = new Set(["type", "content", "target"]);
  return [...changesBetween(from, to)]
    .filter(([, { change, aspects }]) => change === "removed" || aspects.some((aspect) => isLost.has(aspect)))
    .map(([name]) => name);
}

function save(world: UserWorld, { chance, note }: StepPlace): void {
  const entries = world.now();
  const done = world.run(["save"]);
  none(differences(world.now(), entries), "a save changed the folder");
  const leftOut = done.status === 0 ? null : leftOutOf(done);
  note(leftOut === null ? "whole" : `without ${JSON.stringify(leftOut)}`);
  const { save_point_id: id } = done.data["save_point"] as { save_point_id: string };
  world.points.push({ id, entries, leftOut });
  if (chance.oneIn(2)) look(world);
}

function restore(world: UserWorld, at: StepPlace): void {
  const point = at.chance.pick(world.points);
  if (point === undefined) return;
  const names = [...point.entries.keys()].filter((name) => /^[\w/]+$/.test(name));
  const paths = names.length > 0 && at.chance.oneIn(3) ? [`${world.folder}/${at.chance.pick(names)}`] : [];
  const before = world.now();
  const done = world.run(["restore", point.id, ...paths], [3, 9]);
  const between = world.now();
  at.note(`${world.points.indexOf(point)} ${paths.join()}: ${done.status}`);
  if (done.status !== 0 && done.status !== 10)
    return none(differences(between, before), `refused (${done.status}), and`);
  const listed = [...leftOutOf(done), ...(point.leftOut ?? [])];
  if (paths.length === 0 && done.status === 0 && point.leftOut === null)
    none(differences(between, point.entries), "after a whole restore");
  if (paths.length === 0) {
    const unlisted = lostNames(point.entries, between).filter((name) => !isNear(name, listed));
    none(unlisted, `did not come, and is not listed (${listed.join()})`);
  }
  // Nothing had to change, or nothing could be.
  if (done.data["undo_id"] === null) return none(differences(between, before), "changed without an undo point");
  undo(world, at, { before, listed, isWhole: paths.length === 0 });
}

function undo(
  world: UserWorld,
  { note }: StepPlace,
  { before, listed, isWhole }: { before: Entries; listed: readonly string[]; isWhole: boolean },
): void {
  const done = world.run(["undo"]);
  note(`undone: ${done.status}`);
  const after = world.now();
  none(lostNames(before, after), "a restore and its undo lost");
  if (!isWhole) return;
  const all = [...listed, ...leftOutOf(done)];
  const ofListed = new Set([...before].filter(([name]) => isNear(name, all)).map(([, { inode }]) => inode));
  const lines = [...changesBetween(before, after)].filter(
    ([name, { aspects }]) =>
      name !== "" && aspects.join() !== "links" && !isNear(name, all) && !ofListed.has(before.get(name)?.inode ?? ""),
  );
  none(
    lines.map(([name, { aspects }]) => `${JSON.stringify(name)} ${aspects.join()}`),
    "after an undo, and not listed",
  );
}

function look(world: UserWorld): void {
  world.run(["status"]);
  if (world.points.length > 0) world.run(["diff"]);
}

function check(world: UserWorld): void {
  if (world.points.length === 0) return;
  assert.equal(world.run(["verify", "--all", "--deep"]).status, 0);
  assert.equal(world.run(["doctor"]).status, 0);
}

export const USER_STEPS: readonly Step<UserWorld>[] = [
  { name: "edit", weight: 6, run: (world, at) => world.edit(at, 2 + at.chance.below(6)) },
  { name: "save", weight: 3, run: save },
  { name: "restore", weight: 5, run: restore },
  { name: "look", weight: 1, run: look },
  { name: "check", weight: 1, run: check },
];
