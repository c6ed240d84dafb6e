import assert from "node:assert/strict";
import path from "node:path";
import { randomFrom } from "../../src/workspace/store/testing-edits.ts";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import type { Client } from "../../src/contract/index.ts";
import { cairn, type Outcome, type RunOptions } from "../fixtures/command.ts";
import { LONG } from "../fixtures/long.ts";
import { differencesOf, type FolderState, readFolder, type StateOptions } from "../fixtures/folder-state.ts";

/** Seeds of the samples; printed if a test of the file fails. */
export const SEED = Number(process.env["CAIRN_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
process.on("exit", (status) => {
  if (status !== 0) process.stderr.write(`repeat with CAIRN_TEST_SEED=${SEED}\n`);
});
export const random = randomFrom(SEED);

/** Runs the command on a file system whose renames take no flags, as on NFS. */
export const WITHOUT_RENAME_FLAGS = {
  command: path.join(import.meta.dirname, "../fixtures/without-rename-flags.ts"),
} satisfies RunOptions;

/** How many passes of failpoints a command makes; runs it to its end. */
export function passesOf(args: readonly string[], options: RunOptions = {}): string[] {
  const done = cairn(args, { ...options, failpoint: "trace" });
  assert.ok(done.status === 0 || done.status === 10, `${args.join(" ")}: ${done.stdout} ${done.stderr}`);
  return done.failpoints;
}

/** So many passes of a command are killed in a run; the seed of each run chooses others. */
const PASSES = 4;

/**
 * Which passes to kill at, 1-based: all when they are few or CAIRN_TEST_LONG is set; otherwise the first of each name,
 * then a sample.
 */
export function chosenPasses(names: readonly string[], limit: number = PASSES): number[] {
  const all = names.map((_name, i) => i + 1);
  if (LONG || all.length <= limit) return all;
  // Before anything was done, and after everything was.
  const chosen = new Set([1, all.length]);
  // The first pass of each name as far as the limit goes, then any.
  for (const name of shuffled([...new Set(names)]).slice(0, limit - 2)) chosen.add(names.indexOf(name) + 1);
  while (chosen.size < limit) chosen.add(1 + Math.floor(random() * all.length));
  return [...chosen].toSorted((a, b) => a - b);
}

/** Of a list of passes all when they are few or CAIRN_TEST_LONG is set; otherwise the first, the last and a sample. */
export function someOf<T>(all: readonly T[], limit: number = PASSES): T[] {
  if (LONG || all.length <= limit) return [...all];
  const between = new Set(shuffled(all.slice(1, -1)).slice(0, limit - 2));
  return all.filter((each, i) => i === 0 || i === all.length - 1 || between.has(each));
}

/** Kills a command at its n-th pass; null when it ended before. */
export function killAt(args: readonly string[], pass: number, options: RunOptions = {}): string | null {
  const done: Outcome = cairn(args, { ...options, failpoint: `#${pass}` });
  if (done.killed) return done.failpoints.at(-1) ?? "?";
  assert.ok(
    done.status === 0 || done.status === 10,
    `${args.join(" ")}: exit ${done.status}\n${done.stdout}\n${done.stderr}`,
  );
  return null;
}

/** Which of some states the folder is in; fails with all differences when it is in none. */
export function oneOf(
  folder: string,
  states: Readonly<Record<string, FolderState>>,
  context: string,
  options: StateOptions = {},
): string {
  const now = readFolder(folder, options);
  const reports: string[] = [];
  for (const [name, state] of Object.entries(states)) {
    const lines = differencesOf(now, state);
    if (lines.length === 0) return name;
    reports.push(`not ${name}:\n  ${lines.join("\n  ")}`);
  }
  throw new Error(`${context}: the folder is in none of the states\n${reports.join("\n")}`);
}

/** Saves, by a command that meets whatever was left, and checks that the point holds the folder as it is. */
export async function saveAndCheck(client: Client, folder: string, context: string): Promise<void> {
  const saved = await client.save({ message: context, skipUnchanged: true });
  assert.equal(saved.payload_root_hash, walkDigests(folder).state, context);
  const { head, damaged } = await client.history();
  assert.equal(head, saved.save_point_id, context);
  assert.deepEqual(damaged, [], context);
}

function shuffled<T>(list: readonly T[]): T[] {
  return list
    .map((value) => ({ value, at: random() }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ value }) => value);
}
