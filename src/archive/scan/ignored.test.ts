import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { TYPE } from "../../fs/linux/syscalls.ts";
import { makeNode } from "../../workspace/store/testing-edits.ts";
import { assertSame, type Saved, temporaryFolder, TestStore } from "../../workspace/store/testing-store.ts";
import { eachRecord } from "./summary.ts";

function recorded(saved: Saved): string[] {
  const paths: string[] = [];
  eachRecord(saved.table, saved.old, (entry) => paths.push(entry.path().toString()));
  return paths.toSorted();
}

function write(root: string, files: Record<string, string>): void {
  for (const [name, content] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    fs.writeFileSync(path.join(root, name), content);
  }
}

void describe("ignore rules of a scan", () => {
  test("nested ignore files and excludes apply together, and a changed ignore file applies at once", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    write(root, {
      ".cairnignore": "*.log\nbuild/\n!keep.log\n",
      "a.log": "",
      "keep.log": "",
      "build/out": "",
      "src/build/out": "",
      "src/x.log": "",
      "src/.cairnignore": "!x.log\n*.tmp\n",
      "src/y.tmp": "",
      "y.tmp": "",
      ".gitignore": "y.tmp\n",
      "node_modules/a/b": "",
    });
    const saved = await saves.save(root, { request: { excludes: ["node_modules"] } });
    const kept = [".cairnignore", ".gitignore", "keep.log", "src", "src/.cairnignore", "src/x.log", "y.tmp"];
    assert.deepEqual(recorded(saved), kept);
    assert.equal(saved.notes.ignoredCount, 5);
    assert.deepEqual(saved.notes.ignoreFiles.map((file) => Buffer.from(file.path).toString()).toSorted(), ["", "src"]);
    assertSame(await saves.save(root, { request: { excludes: ["node_modules"] } }), saved);

    fs.writeFileSync(path.join(root, ".cairnignore"), "");
    const open = await saves.save(root);
    assertSame(open, await saves.look(root));
    assert.deepEqual(open.summary.entries, { files: 10, directories: 5, links: 0, other: 0 });

    const rules = { excludes: [], files: [{ path: "src", text: "*\n" }] };
    const old = await saves.save(root, { request: { rules } });
    assert.deepEqual(
      recorded(old).filter((name) => name.startsWith("src/")),
      [],
    );
    assertSame(old, await saves.look(root, { request: { rules } }));
    assertSame(await saves.save(root), await saves.look(root));
  });

  test("only a regular file of at most 1 MiB is an ignore file", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    write(root, { "a/x": "", "b/x": "", "c/x": "", "d/x": "", rules: "x\n" });
    makeNode(path.join(root, "a/.cairnignore"), TYPE.PIPE);
    fs.symlinkSync("../rules", path.join(root, "b/.cairnignore"));
    fs.mkdirSync(path.join(root, "c/.cairnignore"));
    // Longer than what is read of a file at a time, with the rule at its end.
    fs.writeFileSync(path.join(root, "d/.cairnignore"), `${"# nothing\n".repeat(90_000)}x\n`);
    const saved = await saves.save(root);
    assert.deepEqual(
      recorded(saved).filter((name) => name.endsWith("/x")),
      ["a/x", "b/x", "c/x"],
    );
    assert.deepEqual(
      saved.notes.ignoreFiles.map((file) => Buffer.from(file.path).toString()),
      ["d"],
    );
    assertSame(await saves.save(root), saved);
    fs.writeFileSync(path.join(root, "d/.cairnignore"), "#".repeat(2 ** 20 + 1));
    await assert.rejects(saves.save(root), { code: "refused" });
    fs.writeFileSync(path.join(root, "a.tmp"), "");
    fs.writeFileSync(path.join(root, ".cairnignore"), "*.tmp\n");
    const passing = await saves.save(root, { request: { passesLongRules: true } });
    assert.deepEqual(
      recorded(passing).filter((name) => name.endsWith("/x") || name.endsWith(".tmp")),
      ["a/x", "b/x", "c/x", "d/x"],
    );
    const { ignoreFiles, longRules } = passing.notes;
    assert.deepEqual(
      [...ignoreFiles.map((file) => file.path), ...longRules].map((directory) => Buffer.from(directory).toString()),
      ["", "d"],
    );
  });

  test("the staging directory of a restore in the root is never recorded", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    write(root, {
      file: "x",
      ".cairn-restore-0123456789abcdef/0": "staged",
      ".cairn-restore-mine": "an ordinary file too",
      "dir/.cairn-restore-1234": "an ordinary file",
    });
    const saved = await saves.save(root);
    assert.deepEqual(recorded(saved), [".cairn-restore-mine", "dir", "dir/.cairn-restore-1234", "file"]);
    const skipped = await saves.save(root, { request: { skip: ["dir"] } });
    assert.deepEqual(recorded(skipped), [".cairn-restore-mine", "file"]);
  });
});
