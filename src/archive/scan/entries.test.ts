import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { withJobs } from "../../threads/threads.ts";
import { TYPE } from "../../fs/linux/syscalls.ts";
import { makeNode, setAttribute } from "../../workspace/store/testing-edits.ts";
import { assertSame, temporaryFolder, TestStore } from "../../workspace/store/testing-store.ts";
import { walkDigests } from "../../workspace/store/testing-walk.ts";

const ROOT = process.geteuid?.() === 0;

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

function below(folder: string, name: Buffer | string): Buffer {
  return Buffer.concat([Buffer.from(`${folder}/`), Buffer.from(name as string)]);
}

/** Saves twice, rereads and looks: all must agree with each other, and with a walk that knows only the rules. */
async function assertScans(saves: TestStore, root: string, walk: "state" | "both"): Promise<void> {
  const first = await saves.save(root);
  assertSame(await saves.save(root), first, "with the cache");
  assertSame(await saves.save(root, { request: { reread: true } }), first, "read again");
  assertSame(await saves.save(root, { distrust: true }), first, "each id looked up");
  assertSame(await saves.look(root), first, "without a cache");
  const expected = walkDigests(root);
  assert.equal(hex(first.state), expected.state);
  if (walk === "both") assert.equal(hex(first.meta), expected.meta);
}

void describe("scan of all kinds of entries", () => {
  test("progress names the directory that is being read", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    for (let i = 0; i < 4; i++) {
      fs.mkdirSync(path.join(root, `dir-${i}`));
      for (let k = 0; k < 25; k++) fs.writeFileSync(path.join(root, `dir-${i}/${k}`), randomBytes(1_000_000));
    }
    const seen: (string | undefined)[] = [];
    const onProgress = ({ phase, current }: { phase: string; current?: string }): void => {
      if (phase === "scanning") seen.push(current);
    };
    // One thread, which takes longer than progress is told apart.
    await withJobs(1, async () => saves.save(root, { onProgress }));
    assert.ok(
      seen.every((name) => name?.startsWith(`${root}/`)),
      seen.join(),
    );
    assert.ok(
      seen.some((name) => name?.startsWith(`${root}/dir-`)),
      seen.join(),
    );
  });

  test("scan records an entry of every type", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    fs.writeFileSync(path.join(root, "file"), "text");
    fs.writeFileSync(path.join(root, "empty"), "");
    fs.mkdirSync(path.join(root, "dir"));
    fs.symlinkSync("file", path.join(root, "link"));
    fs.symlinkSync("nowhere/at all", path.join(root, "dangling"));
    fs.symlinkSync(Buffer.from([0xff, 0xfe, 0x2f, 0x80]), below(root, "raw-target"));
    fs.symlinkSync("x".repeat(4095), path.join(root, "long-target"));
    assert.ok(makeNode(path.join(root, "pipe"), TYPE.PIPE));
    const sockets = makeNode(path.join(root, "socket"), TYPE.SOCKET);
    const devices = ROOT && makeNode(path.join(root, "null"), TYPE.CHARDEV, [1, 3]);
    if (devices) makeNode(path.join(root, "disk"), TYPE.BLOCKDEV, [259, 70_000]);
    await assertScans(saves, root, "both");
    const { summary } = await saves.save(root);
    const other = 1 + Number(sockets) + (devices ? 2 : 0);
    assert.deepEqual(summary.entries, { files: 2, directories: 1, links: 4, other });
  });

  test("scan records names as bytes, with every byte except NUL and slash", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    for (let byte = 1; byte < 256; byte++) {
      if (byte === 47) continue;
      fs.writeFileSync(below(root, Buffer.from([0x6e, byte])), `${byte}`);
      if (byte !== 46) fs.mkdirSync(below(root, Buffer.from([byte])));
      fs.symlinkSync(Buffer.from([byte]), below(root, Buffer.from([0x6c, byte, 0x6c])));
    }
    fs.mkdirSync(below(root, Buffer.alloc(255, 0xe9)));
    fs.writeFileSync(below(root, Buffer.concat([Buffer.alloc(255, 0xe9), Buffer.from("/"), Buffer.alloc(255, 1)])), "");
    fs.writeFileSync(below(root, "..."), "");
    fs.writeFileSync(below(root, "..a"), "");
    await assertScans(saves, root, "both");
  });

  test("scan records an entry whose path is longer than PATH_MAX", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    const names: string[] = [];
    let fd = fs.openSync(root, "r");
    for (let depth = 0; depth < 40; depth++) {
      const name = `${depth}-`.padEnd(depth % 3 === 0 ? 255 : 90, "d");
      names.push(name);
      fs.mkdirSync(`/proc/self/fd/${fd}/${name}`);
      fs.writeFileSync(`/proc/self/fd/${fd}/file`, `${depth}`);
      const next = fs.openSync(`/proc/self/fd/${fd}/${name}`, "r");
      fs.closeSync(fd);
      fd = next;
    }
    fs.writeFileSync(`/proc/self/fd/${fd}/deepest`, "bottom");
    fs.closeSync(fd);
    assert.ok(names.join("/").length > 5000);
    await assertScans(saves, root, "both");
    const deep = await saves.save(root);
    assert.deepEqual(deep.summary.entries, { files: 41, directories: 40, links: 0, other: 0 });
  });

  test("scan records hard links in several directories as one group", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    for (const name of ["a", "a.b", "b", "b/c"]) fs.mkdirSync(path.join(root, name));
    fs.writeFileSync(path.join(root, "b/c/file"), "shared");
    // In raw pre-order `a/z` comes before `a.b/y`, although `.` sorts below `/` in no listing.
    fs.linkSync(path.join(root, "b/c/file"), path.join(root, "a.b/y"));
    fs.linkSync(path.join(root, "b/c/file"), path.join(root, "a/z"));
    fs.symlinkSync("target", path.join(root, "a/link"));
    fs.linkSync(path.join(root, "a/link"), path.join(root, "b/link"));
    makeNode(path.join(root, "b/pipe"), TYPE.PIPE);
    fs.linkSync(path.join(root, "b/pipe"), path.join(root, "pipe"));
    await assertScans(saves, root, "both");

    const outside = temporaryFolder(t);
    fs.linkSync(path.join(root, "a/z"), path.join(outside, "elsewhere"));
    await assertScans(saves, root, "both");
    fs.unlinkSync(path.join(root, "a/z"));
    fs.unlinkSync(path.join(root, "a.b/y"));
    await assertScans(saves, root, "both");
    const { summary } = await saves.save(root);
    assert.deepEqual(
      summary.lossless
        .map((field) => [Buffer.from(field.path).toString(), field.field, Buffer.from(field.value).toString()])
        .toSorted(),
      [
        ["a/link", "hard_link", "a/link"],
        ["b/link", "hard_link", "a/link"],
        ["b/pipe", "hard_link", "b/pipe"],
        ["pipe", "hard_link", "b/pipe"],
      ],
    );
  });

  test("scan records unusual modes and times exactly", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t, fs.existsSync("/dev/shm") ? "/dev/shm" : undefined);
    for (const mode of [0, 0o400, 0o4755, 0o2755, 0o1777, 0o7777]) {
      fs.writeFileSync(path.join(root, `f${mode}`), "");
      fs.chmodSync(path.join(root, `f${mode}`), mode);
      fs.mkdirSync(path.join(root, `d${mode}`));
      fs.chmodSync(path.join(root, `d${mode}`), ROOT ? mode : mode | 0o700);
    }
    const times = [-1, -86_400 * 365 * 100, 0, 1, 2 ** 31, 2 ** 33, 253_402_300_800, 300_000_000_000];
    for (const time of times) {
      const at = path.join(root, `t${time}`);
      fs.symlinkSync("x", at);
      const value = time < 0 ? new Date(time * 1000) : time;
      fs.lutimesSync(at, value, value);
    }
    await assertScans(saves, root, "both");
    const { summary } = await saves.save(root);
    const far = summary.lossless
      .filter((field) => field.field === "mtime")
      .map((field) => Buffer.from(field.value).toString());
    assert.deepEqual(far.toSorted(), ["253402300800.0", "300000000000.0"]);
  });

  test("scan records a change of only the extended attributes", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    const file = path.join(root, "file");
    fs.writeFileSync(file, "x");
    fs.mkdirSync(path.join(root, "dir"));
    if (!setAttribute(file, "user.cairn", "1")) return t.skip("no extended attributes here");
    const first = await saves.save(root);
    setAttribute(file, "user.cairn", Buffer.from([0, 1, 0xff]));
    setAttribute(path.join(root, "dir"), "user.empty", "");
    const second = await saves.save(root);
    assert.notDeepEqual(second.meta, first.meta);
    assert.deepEqual(second.state, first.state);
    assertSame(await saves.look(root), second);
    assert.equal(hex(second.state), walkDigests(root).state);
  });

  test("scan records a directory of 5000 entries, which it reads in parts", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    const big = path.join(root, "big");
    fs.mkdirSync(big);
    for (let i = 0; i < 5000; i++) {
      if (i % 50 === 0) fs.mkdirSync(path.join(big, `e${i}`));
      else fs.writeFileSync(path.join(big, `e${i}`), i % 7 === 0 ? "" : `content ${i % 100}`);
    }
    assertSame(await saves.save(root), await saves.look(root));
    for (let i = 0; i < 5000; i += 100) {
      fs.rmSync(path.join(big, `e${i}`), { recursive: true });
      fs.writeFileSync(path.join(big, `e${i + 1}`), "new");
      fs.writeFileSync(path.join(big, `n${i}`), "added");
    }
    await assertScans(saves, root, "both");
    // From long to short and back: parts, whole, parts.
    const some = fs.readdirSync(big).slice(0, 4500);
    for (const name of some) fs.rmSync(path.join(big, name), { recursive: true });
    assertSame(await saves.save(root), await saves.look(root));
  });

  test("scan records an empty folder", async (t) => {
    const saves = await TestStore.create(t);
    await assertScans(saves, temporaryFolder(t), "both");
  });
});
