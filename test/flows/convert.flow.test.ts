import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { describe, test, type TestContext } from "node:test";
import { setAttribute } from "../../src/workspace/store/testing-edits.ts";
import { isSubvolume } from "../../src/fs/linux/btrfs.ts";
import { cairn, cairnOk, startCairn } from "../fixtures/command.ts";
import { assertFolder, type FolderState, readFolder } from "../fixtures/folder-state.ts";
import { fillOddly } from "../fixtures/odd-entries.ts";
import { subvolumesOf } from "../fixtures/held-place.ts";
import { loopFileSystem, type LoopFileSystem, type LoopOptions } from "../fixtures/loop-file-system.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { assertNoLeftovers, cairnLibrary, pauseFile } from "../fixtures/work.ts";

/** A plain folder on btrfs that is made a subvolume in place. */

const SURE = { allow: ["holders"] } as const;
const ALLOW = ["--allow", "holders"];

interface Place {
  volume: LoopFileSystem;
  folder: string;
}

function plainFolder(t: TestContext, options: LoopOptions = {}): Place | null {
  const volume = loopFileSystem(t, "btrfs", options);
  if (volume === null) return null;
  const folder = path.join(volume.root, "ws");
  fs.mkdirSync(folder);
  return { volume, folder };
}

/** What lies beside the folder and its control directory. */
function besides({ volume }: Place): string[] {
  return fs.readdirSync(volume.root).filter((name) => name !== "ws" && name !== ".cairn-control");
}

function assertUntouched(place: Place, state: FolderState, context: string): void {
  assertFolder(place.folder, state, context);
  assert.equal(isSubvolume(place.folder), false, context);
  assert.deepEqual(besides(place), [], context);
  assert.deepEqual(subvolumesOf(place.volume.root), [], context);
}

void describe("a plain folder on btrfs", () => {
  test("init converts a plain folder into an equal subvolume and keeps the original beside it", async (t) => {
    const place = plainFolder(t);
    if (place === null) return;
    const { folder } = place;
    makeFirst(folder);
    fillOddly(folder);
    fs.mkdirSync(path.join(folder, "odd/in-place"));
    execFileSync("chattr", ["+C", "+A", path.join(folder, "odd/in-place")]);
    fs.writeFileSync(path.join(folder, "odd/in-place/disk"), Buffer.alloc(100_000, 7));
    const marks = (): string =>
      execFileSync("lsattr", ["-d", "odd/in-place", "odd/in-place/disk"], { cwd: folder, encoding: "utf8" });
    const marked = marks();
    assert.match(marked, /A.*C.*odd\/in-place\n/);
    const state = readFolder(folder);
    const client = await (await cairnLibrary()).init(folder, { engineType: "btrfs-snapshot", ...SURE });
    assert.ok(isSubvolume(folder));
    assertFolder(folder, state, "converted");
    assert.equal(marks(), marked);
    assert.equal(client.engineType, "btrfs-snapshot");
    const { original, entries } = client.conversion!;
    assert.equal(entries, state.size - 1);
    assertFolder(original, state, "the original");
    const saved = await client.save();
    assert.deepEqual([saved.effective_engine, saved.degraded], ["btrfs-snapshot", []]);
    assertFolder(original, state, "the original after a save");
    assert.equal((await client.status()).clean, true);
    makeSecond(folder);
    await client.restore({ target: saved.save_point_id, method: "exchange" });
    assertFolder(folder, state, "restored");
    assert.deepEqual((await client.verifyAll()).problems, []);
    assertNoLeftovers(client, folder, "converted");
  });

  test("setEngine converts a plain folder and keeps its history, and points of both engines can be restored", async (t) => {
    const place = plainFolder(t);
    if (place === null) return;
    const { folder } = place;
    makeFirst(folder);
    const first = readFolder(folder);
    const client = await (await cairnLibrary()).init(folder);
    const a = await client.save({ message: "by copy" });
    const { conversion, engine } = await client.setEngine("btrfs-snapshot", SURE);
    assert.equal(engine, "btrfs-snapshot");
    assert.ok(fs.existsSync(conversion!.original));
    assert.deepEqual([(await client.status()).clean, (await client.status()).head], [true, a.save_point_id]);
    makeSecond(folder);
    const second = readFolder(folder);
    const warnings: string[] = [];
    const b = await client.save({ message: "held", onWarning: (text) => warnings.push(text) });
    assert.deepEqual([b.parent_id, b.effective_engine, warnings], [a.save_point_id, "btrfs-snapshot", []]);
    await client.restore({ target: a.save_point_id });
    assertFolder(folder, first, "by copy");
    await client.restore({ target: b.save_point_id });
    assertFolder(folder, second, "held");
    assert.equal((await client.setEngine("btrfs-snapshot")).conversion, undefined);
    assert.deepEqual((await client.verifyAll()).problems, []);
    assertNoLeftovers(client, folder, "engine set");
  });

  test("init --engine btrfs-snapshot converts a plain folder and reports the path of the original", (t) => {
    const place = plainFolder(t);
    if (place === null) return;
    const { folder } = place;
    makeFirst(folder);
    const { data } = cairnOk(["init", folder, "--engine", "btrfs-snapshot", ...ALLOW]);
    const { original } = data["conversion"] as { original: string };
    assert.deepEqual(besides(place), [path.basename(original)]);
    cairnOk(["save", folder]);
    assert.deepEqual(besides(place), [path.basename(original)], "it is its user's");
  });
});

void describe("a conversion", () => {
  test("a conversion is refused, and names the process, while a process works in the folder or has a file open", async (t) => {
    const place = plainFolder(t);
    if (place === null) return;
    const { folder } = place;
    makeFirst(folder);
    const state = readFolder(folder);
    for (const script of ['cd "$1/same"; echo r; read line', 'exec 3<"$1/same/kept.txt"; echo r; read line']) {
      const child = spawn("sh", ["-c", script, "sh", folder], { stdio: ["pipe", "pipe", "inherit"] });
      t.after(() => child.kill());
      await once(child.stdout, "data");
      const refused = cairn(["init", folder, "--engine", "btrfs-snapshot", ...ALLOW]);
      assert.equal(refused.error?.code, "refused");
      assert.ok(refused.error?.message.includes(`process ${child.pid} (sh)`), refused.error?.message);
      child.stdin.end();
      await once(child, "close");
    }
    assertUntouched(place, state, "refused");
    assert.deepEqual(fs.existsSync(path.join(place.volume.root, ".cairn-control")), false);
  });

  test("a conversion is refused, with the path, for inner subvolumes, mounts, sockets and immutable files", async (t) => {
    const place = plainFolder(t);
    if (place === null) return;
    const { folder, volume } = place;
    makeFirst(folder);
    const refusal = (): string => {
      const refused = cairn(["init", folder, "--engine", "btrfs-snapshot", ...ALLOW]);
      assert.equal(refused.error?.code, "refused", refused.stdout);
      assert.ok(refused.error.hint, refused.error.message);
      return refused.error.message;
    };
    execFileSync("btrfs", ["-q", "subvolume", "create", path.join(folder, "same/inner")]);
    assert.match(refusal(), /same\/inner/);
    execFileSync("btrfs", ["-q", "subvolume", "delete", path.join(folder, "same/inner")]);
    const mounted = path.join(folder, "same/mounted");
    fs.mkdirSync(mounted);
    const during = (args: string[], at: string, wanted: RegExp): void => {
      execFileSync("mount", [...args, at]);
      try {
        assert.match(refusal(), wanted);
      } finally {
        execFileSync("umount", [at]);
      }
    };
    during(["-t", "tmpfs", "none"], mounted, /same\/mounted/);
    during(["--bind", folder], folder, /is a mount point/);
    const elsewhere = path.join(volume.root, "elsewhere");
    fs.mkdirSync(elsewhere);
    during(["--bind", folder], elsewhere, /also mounted at .*elsewhere/);
    fs.rmdirSync(elsewhere);
    const server = net.createServer().listen(path.join(folder, "listening"));
    await once(server, "listening");
    assert.match(refusal(), /listens on .*ws\/listening/);
    server.close();
    await once(server, "close");
    fs.mkdirSync(elsewhere);
    const script = 'mount --make-rprivate /; mount --bind "$1" "$2"; echo r; cd /; read line';
    const apart = spawn("unshare", ["-m", "sh", "-c", script, "sh", folder, elsewhere], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    await once(apart.stdout, "data");
    assert.match(refusal(), /also mounted at .*elsewhere/);
    apart.stdin.end();
    await once(apart, "close");
    fs.rmdirSync(elsewhere);
    const fixed = path.join(folder, "same/kept.txt");
    execFileSync("chattr", ["+i", fixed]);
    try {
      assert.match(refusal(), /same\/kept\.txt/);
    } finally {
      execFileSync("chattr", ["-i", fixed]);
    }
    cairnOk(["init", folder, "--engine", "btrfs-snapshot", ...ALLOW]);
  });

  for (const { when, failpoint } of [
    { when: "after the copy", failpoint: "convert.copied" },
    { when: "after the comparison", failpoint: "convert.compared" },
    { when: "after every entry was looked at", failpoint: "convert.known" },
    { when: "into the original after the exchange", failpoint: "convert.exchanged" },
  ])
    test(`a conversion changes nothing and keeps the new content if somebody writes ${when}`, async (t) => {
      const place = plainFolder(t);
      if (place === null) return;
      const { folder, volume } = place;
      makeFirst(folder);
      const pause = pauseFile();
      const running = startCairn(["init", folder, "--engine", "btrfs-snapshot", ...ALLOW], {
        failpoint: `${failpoint}@${pause}`,
      });
      await running.paused;
      const [original] = failpoint === "convert.exchanged" ? besides(place) : ["ws"];
      fs.appendFileSync(path.join(volume.root, original!, "goes/deep/a"), "late\n");
      fs.rmSync(pause);
      const ended = await running.ended;
      assert.equal(ended.error?.code, "conflict", ended.stdout);
      assert.match(ended.error.message, /goes\/deep\/a/);
      assert.equal(fs.readFileSync(path.join(folder, "goes/deep/a"), "utf8"), "a\nlate\n");
      assertUntouched(place, readFolder(folder), when);
      cairnOk(["init", folder, "--engine", "btrfs-snapshot", ...ALLOW]);
      assert.equal(fs.readFileSync(path.join(folder, "goes/deep/a"), "utf8"), "a\nlate\n");
    });

  test("a conversion detects a write through a memory mapping that the kernel has not written back", async (t) => {
    const place = plainFolder(t);
    if (place === null) return;
    const { folder } = place;
    makeFirst(folder);
    const pause = pauseFile();
    const running = startCairn(["init", folder, "--engine", "btrfs-snapshot", ...ALLOW], {
      failpoint: `convert.known@${pause}`,
    });
    await running.paused;
    const script = `
import mmap, os, sys
file = open(sys.argv[1], "r+b")
pages = mmap.mmap(file.fileno(), 0)
pages[0:4] = b"late"
os.write(1, b"r")
sys.stdin.read()
`;
    const writer = spawn("python3", ["-c", script, path.join(folder, "big")], { stdio: ["pipe", "pipe", "inherit"] });
    t.after(() => writer.kill());
    await once(writer.stdout, "data");
    fs.rmSync(pause);
    const { error, stdout } = await running.ended;
    assert.equal(error?.code, "conflict", stdout);
    assert.equal(fs.readFileSync(path.join(folder, "big")).subarray(0, 4).toString(), "late");
    writer.stdin.end();
    await once(writer, "close");
    assertUntouched(place, readFolder(folder), "mapped");
  });

  test("a conversion keeps both versions if somebody writes into the original and into its copy", async (t) => {
    const place = plainFolder(t);
    if (place === null) return;
    const { folder, volume } = place;
    makeFirst(folder);
    const pause = pauseFile();
    const running = startCairn(["init", folder, "--engine", "btrfs-snapshot", ...ALLOW], {
      failpoint: `convert.exchanged@${pause}`,
    });
    await running.paused;
    const [beside] = besides(place);
    fs.appendFileSync(path.join(volume.root, beside!, "goes/deep/a"), "to the original\n");
    fs.appendFileSync(path.join(folder, "goes/deep/a"), "to the copy\n");
    fs.rmSync(pause);
    const { error } = await running.ended;
    assert.equal(error?.code, "conflict");
    assert.ok(error.message.includes(beside!), error.message);
    assert.equal(fs.readFileSync(path.join(folder, "goes/deep/a"), "utf8"), "a\nto the original\n");
    assert.equal(fs.readFileSync(path.join(volume.root, beside!, "goes/deep/a"), "utf8"), "a\nto the copy\n");
  });

  test("an aborted conversion leaves the folder unchanged and no files behind", async (t) => {
    const place = plainFolder(t);
    if (place === null) return;
    const { folder } = place;
    makeFirst(folder);
    for (let i = 0; i < 500; i++) fs.writeFileSync(path.join(folder, `file-${i}`), Buffer.alloc(20_000, i));
    const state = readFolder(folder);
    const library = await cairnLibrary();
    for (const phase of ["storing", "verifying"]) {
      const stop = new AbortController();
      const making = library.init(folder, {
        engineType: "btrfs-snapshot",
        ...SURE,
        signal: stop.signal,
        onProgress: (progress) => progress.phase === phase && stop.abort(),
      });
      await assert.rejects(making, { code: "interrupted" }, phase);
      assertUntouched(place, state, phase);
    }
  });

  test("doctor names the original of a conversion, and release leaves the original in place", async (t) => {
    const place = plainFolder(t);
    if (place === null) return;
    const { folder } = place;
    makeFirst(folder);
    const client = await (await cairnLibrary()).init(folder, { engineType: "btrfs-snapshot", ...SURE });
    const { original } = client.conversion!;
    const { findings } = await client.doctor();
    assert.ok(findings.some(({ kind, detail }) => kind === "original" && detail.includes(original)));
    await client.release({ deletePoints: true });
    assertFolder(original, readFolder(folder), "the original");
  });

  test("a conversion fails with no_space and leaves no files behind if the disk is full", async (t) => {
    const place = plainFolder(t, { size: 128 << 20 });
    if (place === null) return;
    const { folder } = place;
    // Attributes lie among the metadata, of which clones need as much again.
    const fileOf = (i: number): string => path.join(folder, `file-${i}`);
    const value = Buffer.alloc(16_000, "a");
    let last = 0;
    for (let isFull = false; !isFull; last++) {
      try {
        fs.writeFileSync(fileOf(last), "");
        isFull = !setAttribute(fileOf(last), "user.large", value);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
        isFull = true;
      }
    }
    for (let i = last; i > last - 300; i--) fs.rmSync(fileOf(i), { force: true });
    const args = ["init", folder, "--engine", "btrfs-snapshot", ...ALLOW];
    for (const more of [[], ["--allow", "space"]]) {
      const failed = cairn([...args, ...more]);
      assert.equal(failed.error?.code, "no_space", failed.stdout + failed.stderr);
      assert.ok(failed.error.hint, failed.stdout);
      if (more.length > 0) assert.match(failed.error.message, /ws is not converted/);
      assert.equal(isSubvolume(folder), false);
      assert.deepEqual(besides(place), []);
    }
  });
});
