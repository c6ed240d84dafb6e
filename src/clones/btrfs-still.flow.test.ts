import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, describe, test } from "node:test";
import { makeLoopFileSystem, withOpen } from "../../test/fixtures/loop-file-system.ts";
import { makeFirst } from "../../test/fixtures/two-states.ts";
import { makeSubvolume, setReadOnly } from "../fs/linux/btrfs.ts";
import { bindNative } from "../native.ts";
import { btrfsHolder } from "./btrfs-holder.ts";

/** What is known of a folder without looking at its entries: whether it is still what a snapshot has. */

const made = makeLoopFileSystem("btrfs");
const skip = "reason" in made ? made.reason : false;
const volume = "reason" in made ? "" : made.root;
const holder = btrfsHolder();
let folders = 0;

interface Place {
  own: string;
  root: string;
  at: (name: string) => string;
}

/** A directory with the subvolume `root` in it, a workspace. */
async function workspace(): Promise<Place> {
  const own = path.join(volume, `test-${folders++}`);
  fs.mkdirSync(own);
  const root = path.join(own, "root");
  await makeSubvolume(Buffer.from(root));
  return { own, root, at: (name) => path.join(own, name) };
}

async function capture(place: Place, name: string): Promise<void> {
  await holder.capture(Buffer.from(place.root), place.at(name), { temporary: place.at("tmp") });
}

function writeAt(file: string, text: string, position: number): void {
  const fd = fs.openSync(file, "r+");
  fs.writeSync(fd, text, position);
  fs.closeSync(fd);
}

/** Stores into the first bytes of a file through a mapping that stays. */
function mapOf(file: string): (text: string) => void {
  const map = bindNative("uint64_t mmap(uint64_t at, uint64_t length, int allowed, int how, int fd, int64_t offset)")!;
  const store = bindNative("uint64_t memset(uint64_t at, int byte, uint64_t length)")!;
  const fd = fs.openSync(file, "r+");
  const [READ_WRITE, SHARED] = [3, 1];
  const at = map(0, 4096, READ_WRITE, SHARED, fd, 0);
  fs.closeSync(fd);
  return (text) => store(at, text.charCodeAt(0), text.length);
}

/** One call writes it for longer than a capture takes. */
const LONG_WRITE = 100 << 20;

/** Without the folder that things are tried in, once in a process, which stays empty. */
function leftIn({ own, at }: Place): string[] {
  if (fs.existsSync(at("tmp"))) fs.rmdirSync(at("tmp"));
  return fs.readdirSync(own).toSorted();
}

describe("a folder and its snapshot on btrfs", { skip }, () => {
  after(() => {
    if (!("reason" in made)) made.close();
  });

  test("capture snapshots a folder once after a write, or at most twice without a temporary folder", async () => {
    const place = await workspace();
    const file = path.join(place.root, "file");
    fs.writeFileSync(file, Buffer.alloc(1 << 20, "a"));
    await capture(place, "point");
    for (const [temporary, times] of [
      [place.at("tmp"), 1],
      [undefined, 2],
    ] as const) {
      writeAt(file, "b", 5000);
      let made = 0;
      const call = { temporary, announce: () => made++ };
      const { announced } = await holder.capture(Buffer.from(place.root), place.at(`point-${times}`), call);
      // The system may have written it back by itself.
      assert.ok(announced === true && made >= 1 && made <= times, `${announced}, ${made}`);
      assert.equal(
        fs
          .readFileSync(place.at(`point-${times}/file`))
          .subarray(5000, 5001)
          .toString(),
        "b",
      );
    }
    assert.deepEqual(leftIn(place), ["point", "point-1", "point-2", "root"]);
  });

  test("isStill is true until a change, whether the change has reached the disk or not", async () => {
    const place = await workspace();
    const big = path.join(place.root, "big");
    makeFirst(place.root);
    fs.writeFileSync(big, Buffer.alloc(1 << 20, "a"));
    const mapped = mapOf(big);
    const still = async (name: string): Promise<boolean | null> =>
      holder.isStill!(Buffer.from(place.root), place.at(name), place.at("tmp"));
    const changes: Record<string, () => unknown> = {
      overwritten: () => writeAt(big, "b", 0),
      extended: () => fs.appendFileSync(big, "c"),
      mapped: () => mapped("d"),
      "mapped again": () => mapped("e"),
      small: () => writeAt(path.join(place.root, "same/kept.txt"), "k", 0),
      synced: () => {
        writeAt(big, "f", 5000);
        spawnSync("sync", ["-f", place.root]);
      },
      created: () => fs.writeFileSync(path.join(place.root, "new"), ""),
      renamed: () => fs.renameSync(path.join(place.root, "new"), path.join(place.root, "newer")),
      linked: () => fs.linkSync(path.join(place.root, "newer"), path.join(place.root, "another")),
      removed: () => fs.unlinkSync(path.join(place.root, "another")),
      directory: () => fs.mkdirSync(path.join(place.root, "folder")),
      times: () => fs.utimesSync(big, 5, 5),
      mode: () => fs.chmodSync(big, 0o600),
      root: () => fs.chmodSync(place.root, 0o750),
      nested: async () => makeSubvolume(Buffer.from(path.join(place.root, "nested"))),
    };
    let count = 0;
    for (const [what, change] of Object.entries(changes)) {
      const name = `point-${count++}`;
      await capture(place, name);
      assert.deepEqual([await still(name), await still(name)], [true, true], `before ${what}`);
      await change();
      assert.equal(await still(name), false, what);
      spawnSync("sync", ["-f", place.root]);
      assert.equal(await still(name), false, `${what}, and synced`);
    }
    assert.deepEqual(
      leftIn(place).filter((name) => !name.startsWith("point-")),
      ["root"],
    );
  });

  test("isStill is true for a folder made from the point, and false for other folders", async () => {
    const place = await workspace();
    makeFirst(place.root);
    await capture(place, "point");
    await capture(place, "second");
    await holder.materialise(place.at("point"), Buffer.from(place.at("again")), {});
    const still = async (folder: string, name: string): Promise<boolean | null> =>
      holder.isStill!(Buffer.from(place.at(folder)), place.at(name), place.at("tmp"));
    assert.equal(await still("again", "point"), true);
    assert.equal(await still("again", "second"), false);
    fs.appendFileSync(place.at("again/same/kept.txt"), "more");
    assert.equal(await still("again", "point"), false);
    assert.equal(await still("root", "second"), true);
    await withOpen(place.at("second"), (fd) => setReadOnly(fd, false));
    assert.equal(await still("root", "second"), false);
    fs.appendFileSync(place.at("second/same/kept.txt"), "not its own");
    spawnSync("sync", ["-f", place.root]);
    await withOpen(place.at("second"), (fd) => setReadOnly(fd, true));
    assert.equal(await still("root", "second"), false);
    fs.mkdirSync(place.at("plain"));
    for (const [folder, name] of [
      ["plain", "second"],
      ["root", "plain"],
      ["root", "nothing"],
    ] as const)
      assert.notEqual(await still(folder, name), true, `${folder} and ${name}`);
  });

  test("isStill is false if a write began before the point and ended after it", async () => {
    const place = await workspace();
    const file = path.join(place.root, "file");
    fs.writeFileSync(file, "");
    spawnSync("sync", ["-f", place.root]);
    const script = `const fs = require("fs"); const bytes = Buffer.alloc(${LONG_WRITE}, "x");
const fd = fs.openSync(process.argv[1], "r+"); fs.writeSync(1, "go"); fs.writeSync(fd, bytes);`;
    const writer = spawn(process.execPath, ["-e", script, file], { stdio: ["ignore", "pipe", "inherit"] });
    const gone = new Promise((resolve) => writer.once("exit", resolve));
    await writer.stdout[Symbol.asyncIterator]().next();
    const points: string[] = [];
    while (writer.exitCode === null) {
      points.push(`point-${points.length}`);
      await capture(place, points.at(-1)!);
    }
    await gone;
    for (const name of points) {
      const isStill = await holder.isStill!(Buffer.from(place.root), place.at(name), place.at("tmp"));
      assert.ok(!isStill || spawnSync("cmp", [file, place.at(`${name}/file`)]).status === 0, name);
    }
  });
});
