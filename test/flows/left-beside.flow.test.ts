import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";

function leftIn(folder: string): string[] {
  return fs.readdirSync(folder).filter((name) => name.startsWith(".cairn-tmp-"));
}

function pathsOf(folder: string): string[] {
  const { entries } = cairnOk(["-C", folder, "show", "head"]).data as { entries: { path: string }[] };
  return entries.map(({ path: name }) => name).sort();
}

test("the temporary folder of a killed export is in no point, and the next save removes it", () => {
  const [folder, out] = [path.join(SCRATCH, "work"), path.join(SCRATCH, "work/deep")];
  fs.mkdirSync(out, { recursive: true });
  fs.writeFileSync(path.join(folder, "file"), "1");
  cairnOk(["save", folder]);
  const source = path.join(SCRATCH, "exported-one");
  fs.mkdirSync(source);
  cairnOk(["save", source]);
  const target = path.join(SCRATCH, "work/exported");
  const killed = cairn(["-C", source, "export", "head", "--to", target], { failpoint: "export-directory.written" });
  assert.equal(killed.killed, true, killed.stderr);
  const [left] = leftIn(folder) as [string];
  // Wherever it lies, and also while a process works in it.
  const inside = path.join(out, left.replace(/-\d+-/, `-${process.pid}-`));
  fs.mkdirSync(inside);
  fs.writeFileSync(path.join(inside, "half"), "x");
  // Names that only look alike are the user's.
  fs.writeFileSync(path.join(folder, ".cairn-tmp-notes"), "mine");
  cairnOk(["save", folder]);
  assert.deepEqual(pathsOf(folder), [".cairn-tmp-notes", "deep", "file"]);
  assert.deepEqual(leftIn(folder), [".cairn-tmp-notes"]);
});

test("an export of a backup that was killed is written again from the start, and leaves nothing", () => {
  const [folder, place] = [path.join(SCRATCH, "backed"), path.join(SCRATCH, "out")];
  for (const each of [folder, place]) fs.mkdirSync(each);
  fs.writeFileSync(path.join(folder, "file"), "1");
  const repository = ["-r", path.join(SCRATCH, "repository"), "--password-file", path.join(SCRATCH, "password")];
  fs.writeFileSync(path.join(SCRATCH, "password"), "secret");
  cairnOk(["backup", "init", ...repository]);
  cairnOk(["-C", folder, "backup", "create", ...repository]);
  const line = ["-C", folder, "export", "backup:latest", "--to", path.join(place, "export"), ...repository];
  for (const failpoint of ["restore-backup.written", "restore-backup.committed", "export-directory.described"]) {
    const killed = cairn(line, { failpoint });
    assert.equal(killed.killed, true, killed.stderr);
    assert.deepEqual([leftIn(place).length, fs.readdirSync(place).length], [1, 1], failpoint);
  }
  cairnOk(line);
  assert.deepEqual(fs.readdirSync(place), ["export"]);
  assert.equal(fs.readFileSync(path.join(place, "export/content/file"), "utf8"), "1");
});

test("import removes the temporary folder of a killed import, and keeps that of a running process", () => {
  const [folder, place] = [path.join(SCRATCH, "source"), path.join(SCRATCH, "place")];
  for (const each of [folder, place]) fs.mkdirSync(each);
  fs.writeFileSync(path.join(folder, "file"), "1");
  cairnOk(["save", folder]);
  const exported = path.join(SCRATCH, "an-export");
  cairnOk(["-C", folder, "export", "head", "--to", exported]);
  const target = path.join(place, "new");
  const killed = cairn(["import", "--from", exported, target], { failpoint: "import-directory.copied" });
  const [left] = leftIn(place);
  if (left === undefined) return assert.fail(`no leftover: ${killed.stderr}`);
  const [, pid, start] = /^\.cairn-tmp-(\d+)-.*-(\d+)$/.exec(left)!;
  const facts = fs.readFileSync(`/proc/${process.pid}/stat`, "utf8");
  const own = facts.slice(facts.lastIndexOf(")") + 2).split(" ")[19]!;
  const live = left.replace(`-tmp-${pid}-`, `-tmp-${process.pid}-`).replace(new RegExp(`-${start}$`), `-${own}`);
  fs.mkdirSync(path.join(place, live));
  cairnOk(["import", "--from", exported, target]);
  assert.deepEqual(leftIn(place), [live]);
});
