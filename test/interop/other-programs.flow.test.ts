import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { SCRATCH } from "../fixtures/command.ts";
import { makeCorpus } from "../fixtures/corpus.ts";
import { differencesOf, readFolder } from "../fixtures/folder-state.ts";
import { OTHER_PROGRAMS } from "../fixtures/other-programs.ts";
import {
  backup,
  filesOf,
  newRepository,
  repositoryPlace,
  type TestRepository,
  tryBackup,
} from "../fixtures/repository.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { newFolder } from "../fixtures/work.ts";

/** Repositories that the newest restic and rustic share with Cairn, in both directions. */

const isRoot = process.geteuid?.() === 0;

interface Listed {
  snapshot_id: string;
  tree: string;
  tags: string[];
  files: number | null;
}

function listed(place: TestRepository): Listed[] {
  return backup(place, "list").data["snapshots"] as Listed[];
}

function verified(place: TestRepository): { problems: unknown[]; digests: number } {
  const { problems, checked } = backup(place, "verify").data as { problems: unknown[]; checked: { digests: number } };
  return { problems, digests: checked.digests };
}

let targets = 0;

function newTarget(): string {
  return path.join(SCRATCH, `other-${targets++}`);
}

for (const program of OTHER_PROGRAMS) {
  void describe(`repositories shared with ${program.name}`, { skip: program.missing }, () => {
    test(`${program.name} checks and restores a snapshot of backup create, except for its known losses`, async () => {
      const folder = newFolder("backup");
      if (isRoot) makeCorpus(folder);
      else makeFirst(folder);
      const place = await newRepository();
      backup(place, "create", "-C", folder);
      program.check(place);
      const target = newTarget();
      program.restore(place, listed(place)[0]!.snapshot_id, target);
      const lost = differencesOf(readFolder(path.join(target, folder)), readFolder(folder));
      assert.deepEqual(
        lost.map((line) => /"([^"]*)"/.exec(line)?.[1]),
        isRoot ? program.loses : [],
      );
    });

    test(`Cairn restores snapshots of ${program.name}, and the repository stays sound if both forget and prune`, () => {
      const folder = newFolder("backup");
      makeFirst(folder);
      const place = repositoryPlace("theirs");
      program.init(place);
      program.backup(place, folder);
      const first = walkDigests(folder).state;
      const [oldest] = listed(place);
      const target = newTarget();
      backup(place, "restore", oldest!.snapshot_id, "--to", target);
      assert.equal(walkDigests(path.join(target, folder)).state, first);
      for (const each of [makeSecond, addMore]) {
        each(folder);
        program.backup(place, folder);
      }
      assert.deepEqual([listed(place).length, verified(place).problems], [3, []]);
      assert.ok(
        listed(place).every(({ files }) => files !== null && files > 5),
        "counts are those of its summary",
      );
      program.forgetAndPrune(place, 2);
      assert.deepEqual([listed(place).length, verified(place).problems], [2, []]);
      backup(place, "forget", "--keep-last", "1", "--prune");
      program.check(place);
      assert.deepEqual([listed(place).length, verified(place).problems], [1, []]);
      const again = newTarget();
      backup(place, "restore", "latest", "--to", again);
      assert.deepEqual(differencesOf(readFolder(path.join(again, folder)), readFolder(folder)).filter(isBelow), []);
      backup(place, "create", "-C", folder);
      program.check(place);
      const ours = newTarget();
      program.restore(place, listed(place).at(-1)!.snapshot_id, ours);
      assert.equal(walkDigests(path.join(ours, folder)).state, walkDigests(folder).state);
    });

    test(`a repository of backup create stays sound if ${program.name} backs up, forgets and prunes in it`, async () => {
      const folder = newFolder("backup");
      makeFirst(folder);
      const place = await newRepository();
      backup(place, "create", "-C", folder);
      program.backup(place, folder);
      makeSecond(folder);
      backup(place, "create", "-C", folder);
      program.check(place);
      assert.deepEqual(verified(place), { problems: [], digests: 2 });
      program.forgetAndPrune(place, 1);
      program.check(place);
      assert.deepEqual(verified(place).problems, []);
      addMore(folder);
      backup(place, "create", "-C", folder);
      program.check(place);
      const target = newTarget();
      backup(place, "restore", "latest", "--to", target);
      assert.equal(walkDigests(target).state, walkDigests(folder).state);
      assert.deepEqual(verified(place).problems, []);
    });

    test(`a copy of a repository by ${program.name} has the same trees and state digests`, async () => {
      const folder = newFolder("backup");
      makeFirst(folder);
      const place = await newRepository();
      backup(place, "create", "-C", folder);
      makeSecond(folder);
      backup(place, "create", "-C", folder);
      const copied = program.copyAll(place);
      const trees = (of: TestRepository): string[] => listed(of).map(({ tree }) => tree);
      assert.deepEqual(trees(copied), trees(place));
      program.check(copied);
      assert.deepEqual(verified(copied), { problems: [], digests: 2 });
      const target = newTarget();
      backup(copied, "restore", "latest", "--to", target);
      assert.equal(walkDigests(target).state, walkDigests(folder).state);
    });

    test(`repair and rewrite commands of ${program.name} change nothing in snapshots of backup create`, async () => {
      const folder = newFolder("backup");
      if (isRoot) makeCorpus(folder);
      else makeFirst(folder);
      const place = await newRepository();
      backup(place, "create", "-C", folder);
      const before = (["snapshots", "index", "data"] as const).map((kind) => filesOf(place, kind));
      for (const words of program.harmless) {
        program.run(place, ...words);
        const after = (["snapshots", "index", "data"] as const).map((kind) => filesOf(place, kind));
        assert.deepEqual([after[0], after[2]], [before[0], before[2]], words.join(" "));
      }
      assert.deepEqual(verified(place), { problems: [], digests: 1 });
    });
  });
}

const [restic] = OTHER_PROGRAMS;

test(
  "a snapshot from which restic removed files is sound, and is restored without these files",
  { skip: restic!.missing },
  async () => {
    const folder = newFolder("backup");
    makeFirst(folder);
    const place = await newRepository();
    backup(place, "create", "-C", folder);
    restic!.run(place, "rewrite", "--forget", "--exclude", path.join(folder, "other"), "latest");
    const [only, ...rest] = listed(place);
    assert.deepEqual(rest, []);
    assert.equal(tryBackup(place, "verify").status, 0);
    const target = newTarget();
    const { warnings, data } = backup(place, "restore", only!.snapshot_id, "--to", target);
    assert.match(warnings.join(), /another program made this snapshot/);
    const inPlace = tryBackup(place, "restore", only!.snapshot_id, "--in-place", "-C", folder);
    assert.match(`${inPlace.status} ${inPlace.stdout}`, /^7 .*another program rewrote it.*--to/);
    fs.rmSync(path.join(folder, "other"), { recursive: true });
    assert.equal(walkDigests(target).state, walkDigests(folder).state);
    assert.deepEqual([data["proof"], data["read_again"], data["left_out"]], [null, true, []]);
  },
);

function addMore(folder: string): void {
  fs.writeFileSync(path.join(folder, "more"), "more\n");
  fs.writeFileSync(path.join(folder, "much"), Buffer.alloc(3_000_000, "much more "));
}

/** Not about the folder itself, which is one of the ancestors of what a whole snapshot holds. */
function isBelow(line: string): boolean {
  return !line.startsWith('differs ""');
}
