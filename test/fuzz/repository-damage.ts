import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { cairn, type Outcome } from "../fixtures/command.ts";
import { resticEnvironment } from "../fixtures/repository.ts";
import type { OracleSnapshot, RepositoryWorld } from "./repository-world.ts";
import type { RepositoryState } from "./repository-reader.ts";
import type { Chance, StepPlace } from "./walk.ts";

/** Files of a repository that are damaged: what is said of it, what still comes back, and what mends it. */

interface Damage {
  kind: "data" | "snapshots";
  /** of the file */
  name: string;
  how: "flipped" | "cut" | "removed";
  /** Bytes from and to which it is not what it was. */
  from: number;
  to: number;
}

/** All of it is taken back. */
export function damage(world: RepositoryWorld, { chance, note }: StepPlace): void {
  const { main } = world;
  if (main.snapshots.length < 2) return;
  const kept = `${main.place.location}-kept`;
  fs.cpSync(main.place.location, kept, { recursive: true, preserveTimestamps: true });
  const state = main.reader.state();
  const needs = new Map(main.snapshots.map((each) => [each, state.needed([main.reader.snapshot(each.id).tree])]));
  const done: Damage[] = [];
  for (let more = chance.pick([1, 1, 2]); more > 0; more--) done.push(...damageOne(world, { chance, state, done }));
  note(done.map(({ kind, how }) => `${kind} ${how}`).join(", "));
  const lost = lostBlobs(state, done);
  const unread = new Set(done.filter(({ kind }) => kind === "snapshots").map(({ name }) => name));
  const lacking = main.snapshots.filter(
    (each) => !unread.has(each.id) && [...needs.get(each)!].some((key) => lost.has(key)),
  );
  assertSaid(world, { done, lacking });
  const whole = main.snapshots.filter((each) => !unread.has(each.id) && !lacking.includes(each));
  for (const each of whole.slice(0, 2)) main.assertRestored(each, "cairn");
  if (lacking.length > 0) main.assertRestoredPart(chance.pick(lacking));
  mend(world, { done, whole });
  fs.rmSync(main.place.location, { recursive: true });
  fs.renameSync(kept, main.place.location);
}

/** One more file; none where that one is damaged already. */
function damageOne(
  { main }: RepositoryWorld,
  { chance, state, done }: { chance: Chance; state: RepositoryState; done: readonly Damage[] },
): Damage[] {
  const kind = chance.pick(["data", "data", "data", "snapshots"] as const);
  const name = chance.pick(kind === "data" ? packsInOrder(state) : main.snapshots.map(({ id }) => id));
  const file = path.join(main.place.location, kind, kind === "data" ? name.slice(0, 2) : "", name);
  // A snapshot that is gone was forgotten, for all that anybody knows.
  const how = chance.pick(
    kind === "data" ? (["flipped", "flipped", "cut", "removed"] as const) : (["flipped", "cut"] as const),
  );
  if (done.some((each) => each.name === name)) return [];
  const { size } = fs.statSync(file);
  const at = chance.below(size);
  fs.chmodSync(file, 0o600);
  if (how === "removed") fs.rmSync(file);
  else if (how === "cut") fs.truncateSync(file, at);
  else {
    const bytes = fs.readFileSync(file);
    bytes[at]! ^= 1 << chance.below(8);
    fs.writeFileSync(file, bytes);
  }
  return [{ kind, name, how, from: how === "removed" ? 0 : at, to: how === "flipped" ? at + 1 : size }];
}

/** By the least of what they hold: their names are others each time, as whatever is sealed is. */
function packsInOrder({ places }: RepositoryState): string[] {
  const packs = [...places]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([, each]) => each.map(({ pack }) => pack));
  return [...new Set(packs)];
}

/** Blobs of which no copy is what it was. */
function lostBlobs(state: RepositoryState, done: readonly Damage[]): Set<string> {
  const isHurt = ({ pack, offset, length }: { pack: string; offset: number; length: number }): boolean =>
    done.some(({ name, from, to }) => name === pack && from < offset + length && to > offset);
  return new Set([...state.places].filter(([, places]) => places.every(isHurt)).map(([key]) => key));
}

interface Problem {
  object: string;
  severity: "damage" | "note";
  losses: { snapshot_id: string }[];
}

function verify({ main }: RepositoryWorld): Outcome {
  return cairn(["backup", "verify", ...main.place.options]);
}

/** Cairn and restic both see it; Cairn names each damaged file or what is in it, and each snapshot that it costs something. */
function assertSaid(
  world: RepositoryWorld,
  { done, lacking }: { done: readonly Damage[]; lacking: readonly OracleSnapshot[] },
): void {
  const said = verify(world);
  assert.equal(said.status, done.length > 0 ? 6 : 0, said.stdout);
  const problems = (said.data["problems"] as Problem[]).filter(({ severity }) => severity === "damage");
  const costs = new Set(problems.flatMap(({ losses }) => losses.map(({ snapshot_id: id }) => id)));
  assert.deepEqual(
    [...costs].toSorted(),
    lacking.map(({ id }) => id).toSorted(),
    `snapshots that it costs something: ${said.stdout}`,
  );
  for (const { kind, name } of done)
    if (kind === "snapshots")
      assert.ok(
        problems.some(({ object }) => object === name),
        `snapshot ${name} is not named`,
      );
  // For what is not there, or not long enough, restic asks again and again for a quarter of an hour.
  if (done.every(({ how }) => how === "flipped"))
    assert.equal(isWellForRestic(world), done.length === 0, "restic check says something else");
}

function isWellForRestic({ main }: RepositoryWorld): boolean {
  const check = ["check", "--read-data", "--no-cache"];
  return spawnSync("restic", check, { env: resticEnvironment(main.place), stdio: "ignore" }).status === 0;
}

/** Mended, both programs find it well, and what lacked nothing still is what it was. */
function mend(
  world: RepositoryWorld,
  { done, whole }: { done: readonly Damage[]; whole: readonly OracleSnapshot[] },
): void {
  const { main } = world;
  const run = (...args: string[]): void => {
    const said = cairn(["backup", ...args, ...main.place.options]);
    assert.ok(said.status === 0 || said.status === 6, `${args.join(" ")}: ${said.status} ${said.stdout}`);
  };
  run("repair", "index");
  run("repair", "packs");
  run("repair", "snapshots", "--forget");
  for (const { kind, name } of done) if (kind === "snapshots") run("forget", name);
  run("prune", ...main.emptyAllowed());
  assert.equal(verify(world).status, 0, verify(world).stdout);
  assert.ok(isWellForRestic(world), "restic check after repairs");
  const there = main.reader.snapshotIds();
  for (const each of whole) {
    assert.ok(there.includes(each.id), "a repair took a snapshot that lacked nothing");
    main.assertHeld(each);
  }
}
