import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairnOk, SCRATCH } from "../fixtures/command.ts";

/** With `--jobs 1` one thread reads at a time, as disks that seek need it: strace shows each read of each thread. */

const skip = spawnSync("strace", ["-V"]).error === undefined ? false : "needs strace";
const READ = /^(\d+) +(\d+)\.(\d+) \w+\(\d+<([^>]*)>.* = [1-9]/;
const READS = "trace=read,pread64,readv,preadv";
/** A command has a few phases, each with one thread that reads. Two threads that read at once take turns all the time. */
const MOST_TURNS = 4;

/** Runs a command with one job. Returns how many files it read below the folders, and how often the reading thread changed. */
function looked(words: readonly string[], folders: readonly string[]): { files: number; turns: number } {
  const log = path.join(SCRATCH, "strace");
  cairnOk([...words, "--jobs", "1"], { prefix: ["strace", "-f", "-qq", "-y", "-ttt", "-e", READS, "-o", log] });
  const reads: { thread: string; at: bigint; file: string }[] = [];
  for (const line of fs.readFileSync(log, "utf8").split("\n")) {
    const [, thread, seconds, micros, file] = READ.exec(line) ?? [];
    if (file === undefined || !folders.some((folder) => file.startsWith(`${folder}/`))) continue;
    reads.push({ thread: thread!, at: BigInt(`${seconds}${micros}`), file });
  }
  reads.sort((a, b) => Number(a.at - b.at));
  const turns = reads.filter(({ thread }, i) => i > 0 && thread !== reads[i - 1]!.thread).length;
  return { files: new Set(reads.map(({ file }) => file)).size, turns };
}

test("one thread at a time reads files and packs with --jobs 1", { skip }, () => {
  const [folder, repository] = [path.join(SCRATCH, "folder"), path.join(SCRATCH, "repository")];
  for (let i = 0; i < 20; i++) {
    for (let j = 0; j < 40; j++) fs.mkdirSync(path.join(folder, `${i}/${j}`), { recursive: true });
    fs.writeFileSync(path.join(folder, `${i}/large`), randomBytes(3 << 20));
    for (let j = 0; j < 40; j++) fs.writeFileSync(path.join(folder, `${i}/${j}/small`), randomBytes(2000));
  }
  const named = ["-r", repository, "--password-command", "echo secret"];
  cairnOk(["backup", "init", ...named]);
  const few = (what: string, words: string[], folders: string[], least: number, phases = 1): void => {
    const { files, turns } = looked([...words, ...named], folders);
    assert.ok(files >= least, `${what} read ${files} files`);
    assert.ok(turns <= phases * MOST_TURNS, `${what}: the thread that reads changed ${turns} times`);
  };
  few("create", ["backup", "create", folder], [folder], 800);
  few("verify", ["backup", "verify"], [repository], 4);
  few("restore", ["backup", "restore", "latest", "--to", path.join(SCRATCH, "to")], [repository], 4);
  for (let i = 0; i < 10; i++) fs.writeFileSync(path.join(folder, `${i}/large`), randomBytes(3 << 20));
  const state = process.env["XDG_STATE_HOME"]!;
  few(
    "restore in place",
    ["backup", "restore", "latest", "--in-place", "-C", folder],
    [folder, state, repository],
    40,
    3,
  );
});
