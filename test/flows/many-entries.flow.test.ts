import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { buildCommand, cairnOk } from "../fixtures/command.ts";
import { newFolder } from "../fixtures/work.ts";

const DIRECTORIES = 40;
const FILES = 1000;
/** MiB of objects; a plan and its steps as objects would be 50. */
const HEAP = 36;

function withLittleMemory(...words: string[]): void {
  const args = [`--max-old-space-size=${HEAP}`, "--max-semi-space-size=2", buildCommand(), ...words];
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  assert.equal(status, 0, stderr.slice(0, 2000));
  // Nothing writes to the files meanwhile, so none of them is kept as changed.
  assert.equal(stderr, "");
}

test("restore and undo of 40,000 files run with a heap of 36 MiB", () => {
  const folder = newFolder();
  for (let d = 0; d < DIRECTORIES; d++) {
    const directory = path.join(folder, `directory ${d}`);
    fs.mkdirSync(directory);
    for (let i = 0; i < FILES; i++) fs.writeFileSync(path.join(directory, `file ${i}`), `${i % 5}`);
  }
  cairnOk(["save", "-C", folder]);
  for (const name of fs.readdirSync(folder)) fs.rmSync(path.join(folder, name), { recursive: true });
  withLittleMemory("restore", "latest", "-C", folder);
  const made = fs.readdirSync(folder);
  assert.equal(made.length, DIRECTORIES);
  for (const name of made) assert.equal(fs.readdirSync(path.join(folder, name)).length, FILES);
  assert.equal(fs.readFileSync(path.join(folder, "directory 7", "file 13"), "utf8"), "3");
  withLittleMemory("undo", "-C", folder);
  assert.deepEqual(fs.readdirSync(folder), []);
});
