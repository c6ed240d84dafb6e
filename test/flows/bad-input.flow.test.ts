import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { describe, test, type TestContext } from "node:test";
import { makeNode } from "../../src/workspace/store/testing-edits.ts";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { TYPE } from "../../src/fs/linux/syscalls.ts";
import { cairn, cairnOk, SCRATCH, startCairn } from "../fixtures/command.ts";
import { assertFolder, differencesOf, readFolder } from "../fixtures/folder-state.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { assertNoLeftovers, clientOf, newFolder, resticCheck } from "../fixtures/work.ts";

const isRoot = process.geteuid?.() === 0;
const skipMount = isRoot && spawnSync("mkfs.ext4", ["-V"]).error === undefined ? false : "needs root and mkfs.ext4";
const skipDrop = isRoot && spawnSync("setpriv", ["--version"]).error === undefined ? false : "needs root and setpriv";
const DROPPED = [
  "setpriv",
  "--bounding-set=-dac_override,-dac_read_search,-fowner",
  "--inh-caps=-dac_override,-dac_read_search,-fowner",
  "--",
];

interface Point {
  save_point_id: string;
  payload_root_hash: string;
  complete: boolean;
}

describe("special files and files that change during a save", () => {
  test("save records pipes, sockets and devices without opening them", async () => {
    const folder = newFolder();
    for (const [name, type] of [
      ["pipe", TYPE.PIPE],
      ["socket", TYPE.SOCKET],
    ] as const)
      makeNode(path.join(folder, name), type);
    if (isRoot) makeNode(path.join(folder, "tty"), TYPE.CHARDEV, [5, 0]);
    const state = readFolder(folder);
    const saved = cairnOk(["save", folder], { timeoutMs: 20_000 });
    for (const name of fs.readdirSync(folder)) fs.rmSync(path.join(folder, name));
    cairnOk(["restore", (saved.data["save_point"] as Point).save_point_id, "-C", folder]);
    assertFolder(folder, state, "restored");
  });

  test("save completes while files grow, vanish and change, and says if the point is incomplete", async (t) => {
    const folder = newFolder();
    for (let i = 0; i < 200; i++) fs.writeFileSync(path.join(folder, `steady-${i}`), `${i}`);
    fs.writeFileSync(path.join(folder, "grows"), Buffer.alloc(8 << 20, "x"));
    const script = `const fs = require("node:fs"); const at = (n) => process.argv[1] + "/" + n; let i = 0;
for (;;) { i++; fs.appendFileSync(at("grows"), "more"); fs.writeFileSync(at("comes-" + (i % 7)), "x".repeat(i % 5000)); fs.rmSync(at("comes-" + ((i + 3) % 7)), { force: true });
fs.mkdirSync(at("dir-" + (i % 3) + "/deep"), { recursive: true }); fs.rmSync(at("dir-" + ((i + 1) % 3)), { recursive: true, force: true }); }`;
    const writer = spawn(process.execPath, ["-e", script, folder], { stdio: "ignore" });
    t.after(() => writer.kill("SIGKILL"));
    const client = await clientOf(folder);
    for (let i = 0; i < 6; i++) {
      const done = await startCairn(["save", folder]).ended;
      assert.ok(done.status === 0 || done.status === 10, done.stdout + done.stderr);
      const point = done.data["save_point"] as Point & { labels: unknown[] };
      assert.equal(point.complete, done.status === 0, done.stdout);
    }
    writer.kill("SIGKILL");
    assert.deepEqual((await client.verifyAll()).problems, []);
    const last = await client.save();
    assert.equal(last.payload_root_hash, walkDigests(folder).state);
    resticCheck(client, "after it");
  });
});

describe("a disk that is full", { skip: skipMount }, () => {
  test("save and restore fail with no_space on a full disk, and succeed once there is room", async (t) => {
    const mounted = mountSmall(t, 40);
    const folder = path.join(mounted, "work");
    fs.mkdirSync(folder);
    fs.writeFileSync(path.join(folder, "a"), noise(1 << 20, 1));
    const client = await clientOf(folder);
    const { save_point_id: first } = await client.save();
    const firstState = readFolder(folder);
    fs.writeFileSync(path.join(folder, "a"), noise(1 << 20, 2));
    await client.save();
    const filler = path.join(mounted, "filler");
    fill(filler, 1 << 20);
    fs.writeFileSync(path.join(folder, "b"), "small\n");
    fs.truncateSync(filler, fs.statSync(filler).size - (2 << 20));
    fs.writeFileSync(path.join(folder, "c"), noise(1 << 20, 3));
    fill(`${filler}-2`, 0);
    const now = readFolder(folder);
    const refused = cairn(["save", folder, "--allow", "space"]);
    assert.equal(refused.status, 8, refused.stdout + refused.stderr);
    assert.equal(refused.error?.code, "no_space");
    const guarded = cairn(["save", folder]);
    assert.equal(guarded.status, 8, guarded.stdout);
    const restore = cairn(["restore", first, "-C", folder]);
    assert.equal(restore.status, 8, restore.stdout + restore.stderr);
    assertFolder(folder, now, "nothing was touched");
    assert.equal(cairn(["history", folder]).status, 0);
    assert.equal(cairn(["status", folder]).status, 0);
    fs.rmSync(`${filler}-2`);
    // Wherever it runs out: a point is there or not, and what is there is whole.
    for (const spare of [40, 300, 700, 1100, 1500]) {
      fs.rmSync(filler);
      fill(filler, spare << 10);
      fs.writeFileSync(path.join(folder, "a"), noise(1 << 20, spare));
      const done = cairn(["save", folder, "--allow", "space"]);
      assert.ok(done.status === 0 || done.status === 8, `${spare} KiB: ${done.stdout}${done.stderr}`);
      const back = cairn(["restore", first, "-C", folder]);
      assert.ok(back.status === 0 || back.status === 8, `${spare} KiB: ${back.stdout}${back.stderr}`);
      if (back.status === 0) assertFolder(folder, firstState, `restored with ${spare} KiB`);
    }
    fs.rmSync(filler);
    cairnOk(["save", folder, "--allow", "space"]);
    assertNoLeftovers(client, folder, "after it");
    await client.restore({ target: first });
    assertFolder(folder, firstState, "restored");
    assert.deepEqual((await client.verifyAll()).problems, []);
    resticCheck(client, "after it");
  });
});

describe("a control directory that cannot be written", { skip: skipDrop }, () => {
  test("commands that only read work if the control directory is read-only; save, restore and pin fail", async (t) => {
    const folder = newFolder();
    makeFirst(folder);
    const client = await clientOf(folder);
    const { save_point_id: first } = await client.save();
    makeSecond(folder);
    spawnSync("chmod", ["-R", "a-w", client.controlDirectory]);
    t.after(() => spawnSync("chmod", ["-R", "u+w", client.controlDirectory]));
    const dropped = (...args: string[]): ReturnType<typeof cairn> => cairn(args, { prefix: DROPPED });
    const to = newFolder();
    for (const args of [
      ["history", folder],
      ["status", folder],
      ["diff", first, "-C", folder],
      ["show", first, "-C", folder],
      ["verify", first, "-C", folder],
      ["store", "-C", folder],
      ["restore", first, "--to", path.join(to, "restored"), "-C", folder],
    ]) {
      const done = dropped(...args);
      assert.equal(done.status, 0, `${args[0]}: ${done.stdout}${done.stderr}`);
    }
    const doctor = dropped("doctor", folder);
    assert.deepEqual([doctor.status, doctor.error?.code], [4, "overdue"], "doctor says that saves fail");
    const before = readFolder(folder);
    for (const args of [
      ["save", folder],
      ["restore", first, "-C", folder],
      ["pin", first, "-C", folder],
    ]) {
      const done = dropped(...args);
      assert.equal(done.status, 9, `${args[0]}: ${done.stdout}${done.stderr}`);
      assert.equal(done.error?.code, "permission");
    }
    assertFolder(folder, before, "nothing was touched");
  });
});

describe("an unreadable file", { skip: skipDrop }, () => {
  test("status lists an unreadable file until a point contains it", async () => {
    const folder = newFolder();
    fs.writeFileSync(path.join(folder, "open"), "open");
    fs.writeFileSync(path.join(folder, "closed"), "closed", { mode: 0 });
    fs.chmodSync(path.join(folder, "closed"), 0);
    const dropped = (...args: string[]): ReturnType<typeof cairn> => cairn(args, { prefix: DROPPED });
    assert.equal(dropped("save", folder).status, 10);
    const status = dropped("status", folder);
    assert.equal(status.status, 0, status.stderr);
    assert.equal(status.data["clean"], true);
    const left = { path: "closed", reason: "unreadable", detail: "permission denied (EACCES)" };
    assert.deepEqual(status.data["head_incomplete"], { count: 1, left_out: [left] });
    fs.chmodSync(path.join(folder, "closed"), 0o600);
    const changed = dropped("status", folder);
    assert.deepEqual([changed.data["clean"], changed.data["changes"]], [false, { added: 1, modified: 0, removed: 0 }]);
    assert.equal(dropped("save", folder).status, 0);
    const whole = dropped("status", folder);
    assert.deepEqual([whole.data["clean"], whole.data["head_incomplete"]], [true, null]);
  });
});

describe("entries that a point lacks because the save could not read them", { skip: skipDrop }, () => {
  test("restore, fork, view and backups report the entries that a save could not read", () => {
    const folder = newFolder();
    const at = (name: string): string => path.join(folder, name);
    fs.mkdirSync(at("dir"));
    fs.writeFileSync(at("open"), "open");
    for (const name of ["closed", "dir/closed"]) {
      fs.writeFileSync(at(name), "closed");
      fs.chmodSync(at(name), 0);
    }
    fs.mkdirSync(at("shut"));
    fs.writeFileSync(at("shut/inside"), "closed");
    fs.chmodSync(at("shut"), 0);
    const dropped = (...args: string[]): ReturnType<typeof cairn> => cairn(args, { prefix: DROPPED });
    const saved = dropped("save", folder);
    assert.equal(saved.status, 10);
    const first = (saved.data["save_point"] as Point).save_point_id;
    fs.rmSync(at("shut"), { recursive: true });
    for (const name of ["closed", "dir/closed", "open"]) fs.rmSync(at(name));
    const all = ["closed", "dir/closed", "shut"];
    const to = newFolder();
    for (const [listed, ...args] of [
      [["dir/closed"], "restore", first, at("dir"), "-C", folder],
      [["closed"], "restore", first, at("closed"), "-C", folder],
      [["shut"], "restore", first, at("shut/inside"), "-C", folder],
      [all, "restore", first, "--keep-present", "-C", folder],
      [all, "restore", first, "-C", folder],
      [["dir/closed"], "restore", first, at("dir"), "--to", path.join(to, "dir"), "-C", folder],
      [all, "restore", first, "--to", path.join(to, "all"), "-C", folder],
      [all, "fork", first, path.join(to, "fork"), "-C", folder],
    ] as const) {
      const isPlanned = args[0] === "restore" && !args.some((word) => word === "--to");
      const planned = isPlanned ? dropped(...args, "--plan").data["plan"] : null;
      const done = dropped(...args);
      assert.equal(done.status, 10, `${args.join(" ")}: ${done.stdout}`);
      const left = done.data["left_out"] as { path: string; reason: string }[];
      if (isPlanned) assert.deepEqual((planned as { left_out: unknown }).left_out, left, args.join(" "));
      assert.deepEqual(left.map(({ path: name }) => name).toSorted(), listed, args.join(" "));
      assert.ok(
        left.every(({ reason }) => reason === "unreadable"),
        done.stdout,
      );
    }
    const [repository, key] = [path.join(to, "repository"), path.join(to, "key")];
    fs.writeFileSync(key, "secret");
    const backup = (verb: string, ...words: string[]): ReturnType<typeof cairn> =>
      dropped("backup", verb, ...words, "-r", repository, "--password-file", key, "-C", folder);
    assert.equal(backup("init").status, 0);
    assert.equal(backup("create", first).status, 10);
    const [planned, done] = [["--plan"], []].map((dry) => backup("restore", "latest", "--in-place", ...dry));
    assert.deepEqual(planned!.data["left_out"], done!.data["left_out"]);
    assert.equal((done!.data["left_out"] as unknown[]).length, all.length, done!.stdout);
    assert.match(dropped("view", first, "-C", folder).warnings.join(), /3 entries/);
    assert.equal(fs.readFileSync(at("open"), "utf8"), "open");
    // What was restored away from has all of its own.
    assert.equal(dropped("undo", "-C", folder).status, 0);
  });
});

describe("invalid ids and paths", () => {
  test("commands refuse invalid ids and paths with the exit status of the error code", async () => {
    const folder = newFolder();
    fs.writeFileSync(path.join(folder, "f"), "x");
    await (await clientOf(folder)).save();
    const before = readFolder(folder);
    for (const [args, status, code] of [
      [["restore", "zzzz", "-C", folder], 2, "invalid_id"],
      [["restore", "../../etc", "-C", folder], 2, "invalid_id"],
      [["restore", "abg", "-C", folder], 2, "invalid_id"],
      [["restore", path.join(folder, "f"), "-C", folder], 2, "invalid_id"],
      [["restore", "", "-C", folder], 2, null],
      [["restore", "f".repeat(33), "-C", folder], 2, "invalid_id"],
      [["restore", "0123456789abcdef0123456789abcdef", "-C", folder], 3, "not_found"],
      [["restore", "head~9", "-C", folder], 3, "not_found"],
      [["restore", "head", path.join(folder, "nothing"), "-C", folder], 3, "not_found"],
      [["undo", "-C", folder], 3, "nothing_to_undo"],
      [["show", "head:nothing", "-C", folder], 3, "not_found"],
      [["diff", "head", "ffffffff", "-C", folder], 3, "not_found"],
      [["verify", "ffffffff", "-C", folder], 3, "not_found"],
      [["history", "-C", path.join(SCRATCH, "not-there")], 3, "not_a_workspace"],
      [["save", path.join(SCRATCH, "not-there")], 3, "not_found"],
      [["save", path.join(folder, "f")], 7, "refused"],
      [["save", "/"], 7, "refused"],
      [["save", folder, "--cause", "{"], 2, "usage"],
    ] as const) {
      const done = cairn(args);
      assert.equal(done.status, status, `${args.join(" ")}: ${done.stdout}${done.stderr}`);
      if (code !== null) assert.equal(done.error?.code, code, args.join(" "));
      assert.doesNotMatch(done.stdout + done.stderr, /\n\s+at /);
    }
    assertFolder(folder, before, "nothing was touched");
  });
});

describe("interrupting a save", () => {
  test("an abort signal or SIGINT ends a save and leaves no files behind", async () => {
    const folder = newFolder();
    for (let i = 0; i < 3000; i++) fs.writeFileSync(path.join(folder, `f${i}`), noise(4000, i));
    const client = await clientOf(folder);
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 60);
    await assert.rejects(async () => client.save({ signal: controller.signal }), { code: "interrupted" });
    assert.equal(await client.hasSavePoints(), false);
    assertNoLeftovers(client, folder, "aborted");
    const running = startCairn(["save", folder]);
    setTimeout(() => running.child.kill("SIGINT"), 250);
    const done = await running.ended;
    // Null: it had not begun yet.
    assert.ok([130, 0, null].includes(done.status), done.stdout + done.stderr);
    const saved = await client.save();
    assert.equal(saved.payload_root_hash, walkDigests(folder).state);
    assertNoLeftovers(client, folder, "interrupted");
    const one = new AbortController();
    one.abort();
    for (const call of [
      client.save({ signal: one.signal }),
      client.restore({ target: "head", signal: one.signal }),
      client.status({ signal: one.signal }),
      client.verifyAll({ signal: one.signal }),
    ]) {
      await assert.rejects(call, { code: "interrupted" });
    }
  });
});

test("a restore aborted at any moment leaves the old or the new state", async () => {
  const folder = newFolder();
  makeFirst(folder);
  const client = await clientOf(folder);
  const { save_point_id: first } = await client.save();
  const wanted = readFolder(folder);
  makeSecond(folder);
  const before = readFolder(folder);
  const outcomes = new Set<string>();
  for (let i = 0; i < 14; i++) {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), i * 6);
    const code = await client.restore({ target: first, signal: controller.signal }).then(
      () => "done",
      (error: unknown) => (error as { code?: string }).code,
    );
    clearTimeout(timer);
    assert.ok(code === "done" || code === "interrupted", `${code}`);
    outcomes.add(code);
    // Stopped after its commit it is finished by the next call.
    await client.status();
    const now = readFolder(folder);
    if (differencesOf(now, before).length > 0) {
      assertFolder(folder, wanted, `stopped after ${i * 6} ms`);
      await client.undo();
      assertFolder(folder, before, "undone");
    } else assert.equal(code, "interrupted");
    assertNoLeftovers(client, folder, `stopped after ${i * 6} ms`);
  }
  assert.ok(outcomes.has("interrupted"));
});

function mountSmall(t: TestContext, mebibytes: number): string {
  const image = path.join(SCRATCH, "small.img");
  const mounted = path.join(SCRATCH, "small");
  fs.mkdirSync(mounted);
  fs.writeFileSync(image, "");
  fs.truncateSync(image, mebibytes << 20);
  spawnSync("mkfs.ext4", ["-q", "-F", "-m", "0", image]);
  const done = spawnSync("mount", ["-o", "loop", image, mounted], { encoding: "utf8" });
  if (done.status !== 0) {
    t.skip(`cannot mount a loop device: ${done.stderr}`);
    throw new Error(done.stderr);
  }
  t.after(() => spawnSync("umount", [mounted]));
  return mounted;
}

/** Fills the file system up but for so many bytes. */
function fill(file: string, spare: number): void {
  const fd = fs.openSync(file, "w");
  try {
    for (const size of [1 << 20, 4096]) {
      try {
        for (;;) fs.writeSync(fd, Buffer.alloc(size, 1));
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
      }
    }
    if (spare > 0) fs.ftruncateSync(fd, fs.fstatSync(fd).size - spare);
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

function noise(size: number, seed: number): Buffer {
  const bytes = Buffer.alloc(size);
  let state = seed + 1;
  for (let i = 0; i + 4 <= size; i += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes.writeUInt32LE((state ^ (state >>> 15)) >>> 0, i);
  }
  return bytes;
}
