import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { SCRATCH } from "../fixtures/command.ts";
import { differencesOf, readFolder } from "../fixtures/folder-state.ts";
import { findPeer } from "../fixtures/peers.ts";
import {
  backup,
  newRepository,
  noRestic,
  restic,
  resticRepository,
  runOn,
  type TestRepository,
  tryBackup,
} from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";
import { firstOf } from "../fixtures/long.ts";

/** `SNAPSHOT:FOLDER` as restic 0.16 and later have it. */

const newer = findPeer("restic", "0.16.0");

let targets = 0;

function newTarget(): string {
  return path.join(SCRATCH, `back-${targets++}`);
}

/** A folder whose `src` is looked at; links lead out of it, and files have names outside. */
function makeFolder(): string {
  const folder = newFolder("subfolder");
  fs.mkdirSync(path.join(folder, "src/deep"), { recursive: true });
  fs.writeFileSync(path.join(folder, "src/main.ts"), "main\n", { mode: 0o640 });
  fs.writeFileSync(path.join(folder, "src/deep/notes"), "notes\n");
  fs.linkSync(path.join(folder, "src/deep/notes"), path.join(folder, "src/notes"));
  fs.linkSync(path.join(folder, "src/main.ts"), path.join(folder, "outside"));
  fs.symlinkSync("../outside", path.join(folder, "src/link"));
  fs.writeFileSync(path.join(folder, "src/zeros"), Buffer.alloc(1 << 20));
  fs.utimesSync(path.join(folder, "src/deep"), 1_600_000_000, 1_600_000_000);
  fs.chmodSync(path.join(folder, "src"), 0o750);
  fs.utimesSync(path.join(folder, "src"), 1_500_000_000, 1_500_000_000);
  return folder;
}

function restored(place: TestRepository, word: string): string {
  const target = newTarget();
  const { data } = backup(place, "restore", word, "--to", target, "--prove", "disk");
  assert.deepEqual([data["left_out"], data["read_again"], data["proof"]], [[], true, null]);
  return target;
}

describe("a folder of a snapshot that restic made", { skip: noRestic }, () => {
  for (const version of firstOf([2, 1] as const, 1))
    test(`restore takes a subfolder by its full path, with or without a leading slash (version ${version})`, () => {
      const folder = makeFolder();
      const place = resticRepository(version);
      restic(place, "backup", folder);
      const src = path.join(folder, "src");
      for (const named of [src, src.slice(1), `${src}/`])
        assert.deepEqual(differencesOf(readFolder(restored(place, `latest:${named}`)), readFolder(src)), [], named);
      const parent = restored(place, `latest:${path.dirname(folder)}`);
      assert.deepEqual(fs.readdirSync(parent), [path.basename(folder)]);
      assert.equal(tryBackup(place, "restore", "latest:src", "--to", newTarget()).error?.code, "not_found");
      assert.equal(tryBackup(place, "restore", `latest:${src}/link`, "--to", newTarget()).error?.code, "conflict");
    });

  test("restore takes a subfolder by its name if restic backed up its current folder", () => {
    const folder = makeFolder();
    const place = resticRepository(2);
    runOn(place, "restic", ["backup", "."], { cwd: folder });
    const target = restored(place, "latest:src");
    assert.deepEqual(differencesOf(readFolder(target), readFolder(path.join(folder, "src"))), []);
  });

  test("restore takes a subfolder of a snapshot that has several folders", () => {
    const [one, two] = [makeFolder(), makeFolder()];
    const place = resticRepository(2);
    restic(place, "backup", one, two);
    const target = restored(place, `latest:${two}/src`);
    assert.deepEqual(differencesOf(readFolder(target), readFolder(path.join(two, "src"))), []);
  });
});

describe(
  "Cairn and restic agree on a subfolder of a snapshot that Cairn made",
  { skip: "reason" in newer ? newer.reason : false },
  () => {
    const theirs = (place: TestRepository, ...args: string[]): string => {
      assert.ok("program" in newer);
      return runOn(place, newer.program, args).toString("utf8");
    };
    const below = (at: string): unknown[] => [...readFolder(at, { withoutRootTime: true })].slice(1);

    test("restore of a subfolder writes the same files as restic, with and without patterns", async () => {
      const folder = makeFolder();
      const place = await newRepository();
      backup(place, "create", "-C", folder);
      const word = `latest:${folder}/src`;
      for (const more of [[], ["--include", "/deep"], ["--include", "notes"], ["--exclude", "/zeros"]]) {
        const [their, our] = [newTarget(), newTarget()];
        theirs(place, "restore", word, "--target", their, ...more);
        backup(place, "restore", word, "--to", our, ...more);
        assert.deepEqual(below(our), below(their), more.join(" "));
      }
    });

    test("diff of two subfolders lists the same paths as restic", async () => {
      const folder = makeFolder();
      const place = await newRepository();
      const create = (): string =>
        (backup(place, "create", "-C", folder).data["snapshot"] as { snapshot_id: string }).snapshot_id;
      const first = create();
      fs.writeFileSync(path.join(folder, "src/deep/new"), "new\n");
      fs.writeFileSync(path.join(folder, "src/zeros"), "less\n");
      fs.rmSync(path.join(folder, "src/link"));
      fs.writeFileSync(path.join(folder, "elsewhere"), "not looked at\n");
      fs.renameSync(path.join(folder, "src"), path.join(folder, "sources"));
      const words = [`${first}:${folder}/src`, `${create()}:${folder}/sources`];
      const lines = theirs(place, "diff", ...words).split("\n");
      const wanted = lines.flatMap((line) => /^[-+M]\s+\/(\S+?)\/?$/.exec(line)?.[1] ?? []);
      const { entries } = backup(place, "diff", ...words).data as { entries: { path: string; aspects: string[] }[] };
      const found = entries.filter(({ aspects }) => aspects.join() !== "times").map((each) => each.path);
      assert.deepEqual(found.toSorted(), wanted.toSorted());
      assert.deepEqual(found.toSorted(), ["deep/new", "link", "zeros"]);
    });
  },
);
