import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { describe, test } from "node:test";
import { setAttribute } from "../../src/workspace/store/testing-edits.ts";
import { putName, syscalls } from "../../src/fs/linux/syscalls.ts";
import { newArena } from "../../src/native.ts";
import type { LeftOut } from "../../src/contract/index.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { clientOf, newFolder, savedFolder, whilePaused } from "../fixtures/work.ts";

/** Attempts to make a restore lose something. */

const isRoot = process.geteuid?.() === 0;
const canDrop = isRoot && spawnSync("setpriv", ["--version"]).error === undefined;
const noRoot = isRoot ? false : "needs root";

/** The command without the right to go past permissions. */
const DROPPED = [
  "setpriv",
  "--bounding-set=-dac_override,-dac_read_search,-fowner",
  "--inh-caps=-dac_override,-dac_read_search,-fowner",
  "--",
];

/** Another file system than the one that tests work in; undefined where there is none. */
const MEMORY = ["/dev/shm"].find(
  (place) => fs.existsSync(place) && fs.statSync(place).dev !== fs.statSync(os.tmpdir()).dev,
);

function leftOut(data: Record<string, unknown>): LeftOut[] {
  return data["left_out"] as LeftOut[];
}

describe("a restore loses nothing", () => {
  test("restore and undo keep files that a newer ignore file hides", async () => {
    const { folder, client, first, write } = await savedFolder({ a: "first\n" });
    write({ a: "rewritten\n", new: "only here\n", "dir/new": "and here\n", ".cairnignore": "*\n" });
    const before = readFolder(folder);
    await client.restore({ target: first });
    assert.deepEqual(fs.readdirSync(folder), ["a"]);
    await client.undo();
    assertFolder(folder, before, "undone");
  });

  test("undo brings back an ignored folder that a restored file replaced", async () => {
    const files = { build: "a file once\n" };
    const { folder, client, first, at, write } = await savedFolder(files, { exclude: ["build/", "*.tmp"] });
    fs.rmSync(at("build"));
    write({ "build/deep/made": "ignored, and in the way\n", "x.tmp": "ignored, and in nobody's way\n" });
    const before = readFolder(folder);
    await client.restore({ target: first });
    assert.equal(fs.readFileSync(at("build"), "utf8"), "a file once\n");
    assert.equal(fs.readFileSync(at("x.tmp"), "utf8"), "ignored, and in nobody's way\n");
    await client.undo();
    assertFolder(folder, before, "undone");
  });

  for (const rules of ["build/*\n", "made\n", "build/*/\n", "build/**\n!build/plain\n", "/build\n*.o\n"]) {
    test(`undo brings back a folder with ignored files that a restored file replaced: ${rules.trim()}`, async () => {
      // A file that the rules leave out comes by a pattern of the save.
      const files = { ".cairnignore": rules, build: "a file once\n" };
      const { folder, client, first, at, write } = await savedFolder(files, { exclude: ["!/build"] });
      fs.rmSync(at("build"));
      for (const name of ["made", "plain", "deep/made", "deep/deeper/made", "deep/x.o"])
        write({ [`build/${name}`]: `${name}, in the way\n` });
      const before = readFolder(folder);
      const { left_out: left } = await client.restore({ target: first });
      assert.deepEqual(left, []);
      assert.equal(fs.readFileSync(at("build"), "utf8"), "a file once\n");
      assert.deepEqual((await client.undo()).left_out, []);
      assertFolder(folder, before, "undone");
    });
  }

  test("restore keeps a folder that still has ignored files", async () => {
    const files = { ".cairnignore": "*.log\n", ".gitignore": "*\n", "sub/.cairnignore": "!keep.log\n*.tmp\n" };
    const { folder, client, first, at, write } = await savedFolder(files);
    fs.rmSync(at(".cairnignore"));
    for (const name of ["new/a.log", "new/deep/b.txt", "sub/x.tmp", "sub/keep.log", "sub/plain"])
      write({ [name]: `${name}\n` });
    const before = readFolder(folder);
    const done = cairnOk(["restore", first, "-C", folder]);
    assert.deepEqual(done.data["left_out"], []);
    assert.deepEqual(
      ["new/a.log", "new/deep", "sub/x.tmp", "sub/keep.log", "sub/plain", ".gitignore"].map((name) =>
        fs.existsSync(at(name)),
      ),
      [true, false, true, false, false, true],
    );
    // The folder that had to stay.
    assert.deepEqual(cairnOk(["status", folder]).data["changes"], { added: 1, modified: 0, removed: 0 });
    await client.undo();
    assertFolder(folder, before, "undone");
  });

  for (const [name, edit] of [
    ["rewritten", (at: string) => fs.writeFileSync(at, "written in between\n")],
    ["replaced", (at: string) => (fs.rmSync(at), fs.writeFileSync(at, "written in between\n"))],
    ["rewritten with its old size and time", (at: string) => rewriteQuietly(at)],
    [
      "turned into a directory",
      (at: string) => (fs.rmSync(at), fs.mkdirSync(at), fs.writeFileSync(path.join(at, "x"), "written in between\n")),
    ],
  ] as const) {
    test(`restore leaves and lists a file that is ${name} after the undo point was made`, async () => {
      const { folder, first, at, write } = await savedFolder({ f: "first first\n", other: "first\n" });
      write({ f: "second, saved\n", other: "second\n" });
      let after = new Map<string, string>();
      const done = await whilePaused("restore.committed", ["restore", first, "-C", folder], () => {
        edit(at("f"));
        after = readFolder(folder);
      });
      assert.equal(done.status, 10, done.stdout + done.stderr);
      assert.deepEqual(
        leftOut(done.data).map(({ path: where, reason }) => [where, reason]),
        [["f", "changed_since"]],
      );
      for (const [entry, facts] of after)
        if (entry === "f" || entry.startsWith("f/")) assert.equal(readFolder(folder).get(entry), facts);
      assert.equal(fs.readFileSync(at("other"), "utf8"), "first\n");
    });
  }

  test("restore keeps files that are created while it runs", async () => {
    const { folder, first, at, write } = await savedFolder({ comes: "from the first point\n" });
    fs.rmSync(at("comes"));
    write({ "goes/deep/old": "saved\n" });
    const done = await whilePaused("restore.committed", ["restore", first, "-C", folder], () =>
      write({ comes: "made in between\n", "goes/deep/new": "made in between\n" }),
    );
    assert.equal(done.status, 10, done.stdout + done.stderr);
    assert.equal(fs.readFileSync(at("comes"), "utf8"), "made in between\n");
    assert.equal(fs.readFileSync(at("goes/deep/new"), "utf8"), "made in between\n");
    assert.ok(leftOut(done.data).some(({ path: where }) => where === "comes"));
    assert.ok(leftOut(done.data).some(({ path: where }) => where.startsWith("goes")));
  });

  test("restore does not write through a link that replaced a directory while it runs", async () => {
    const { folder, first, at, write } = await savedFolder({ "d/f": "first\n" });
    const outside = newFolder("outside");
    fs.writeFileSync(path.join(outside, "f"), "not ours\n");
    write({ "d/f": "second\n" });
    const before = readFolder(outside);
    const done = await whilePaused("restore.committed", ["restore", first, "-C", folder], () => {
      fs.renameSync(at("d"), at("moved"));
      fs.symlinkSync(outside, at("d"));
    });
    assert.equal(done.status, 10, done.stdout + done.stderr);
    assertFolder(outside, before, "outside");
    assert.equal(fs.readFileSync(at("moved/f"), "utf8"), "second\n");
  });

  test("restore keeps late writes to both names of a hard-linked file that it displaced", async () => {
    const folder = newFolder();
    const at = (name: string): string => path.join(folder, name);
    const linked = (name: string, other: string, text: string): void => {
      fs.writeFileSync(at(name), text);
      fs.linkSync(at(name), at(other));
    };
    const pipes = (name: string, other: string): void => {
      assert.equal(spawnSync("mkfifo", [at(name)]).status, 0);
      fs.linkSync(at(name), at(other));
    };
    linked("d0", "d0x", "of d0\n");
    pipes("d2", "d2x");
    const client = await clientOf(folder);
    const { save_point_id: first } = await client.save();
    linked("p", "q", "precious\n");
    pipes("r", "s");
    await client.save();
    const pipe = fs.openSync(at("r"), fs.constants.O_RDWR | fs.constants.O_NONBLOCK);
    const writer = fs.openSync(at("p"), "a");
    const done = await whilePaused("restore.swapped", ["restore", first, "-C", folder], () => {
      fs.writeSync(writer, "late line\n");
      fs.writeSync(pipe, "late");
      for (const fd of [writer, pipe]) fs.closeSync(fd);
    });
    assert.ok(done.status === 0 || done.status === 10, done.stdout + done.stderr);
    const lines = done.warnings.map((warning) => /^(\w+) .*lies in (.*);/.exec(warning)!);
    const kept = new Map(lines.map(([, name, where]) => [name, where!]));
    assert.equal(fs.readFileSync(kept.get("p")!, "utf8"), "precious\nlate line\n");
    assert.equal(fs.statSync(kept.get("p")!).ino, fs.statSync(kept.get("q")!).ino);
    await client.undo();
    assert.equal(fs.readFileSync(at("d0"), "utf8"), "of d0\n");
    assert.equal(fs.readFileSync(at("p"), "utf8"), "precious\n");
    for (const [name, other] of ["d0 d0x", "p q", "d2 d2x", "r s"].map((both) => both.split(" ") as [string, string])) {
      assert.equal(fs.statSync(at(name)).ino, fs.statSync(at(other)).ino);
      assert.equal(fs.statSync(at(name)).nlink, 2);
    }
    assert.deepEqual((await client.status()).changes, { added: 0, modified: 0, removed: 0 });
  });

  test("restore keeps late writes to a displaced file through a memory mapping", async (t) => {
    if (spawnSync("python3", ["--version"]).error !== undefined) return t.skip("python3 is not installed");
    const folder = newFolder();
    const file = path.join(folder, "mapped");
    fs.writeFileSync(file, Buffer.alloc(8192, "a"));
    const client = await clientOf(folder);
    const { save_point_id: first } = await client.save();
    fs.writeFileSync(file, Buffer.alloc(8192, "b"));
    const script = `import mmap, sys
f = open(sys.argv[1], "r+b"); m = mmap.mmap(f.fileno(), 0); m[0:1] = b"b"; print("ready", flush=True)
sys.stdin.readline(); m[4096:4104] = b"late one"; print("written", flush=True); sys.stdin.readline()`;
    const writer = spawn("python3", ["-c", script, file], { stdio: ["pipe", "pipe", "inherit"] });
    t.after(() => writer.kill());
    const said = lines(writer.stdout);
    assert.equal(await said(), "ready");
    const done = await whilePaused("restore.swapped", ["restore", first, "-C", folder], async () => {
      writer.stdin.write("\n");
      assert.equal(await said(), "written");
    });
    assert.ok(done.status === 0 || done.status === 10, done.stdout + done.stderr);
    assert.equal(fs.readFileSync(file, "latin1"), "a".repeat(8192));
    writer.stdin.end("\n");
    const kept = /lies in (.*);/.exec(done.warnings[0]!)![1]!;
    assert.equal(fs.readFileSync(kept).subarray(4090, 4110).toString(), "bbbbbblate onebbbbbb");
    await client.undo();
    assert.equal(fs.readFileSync(file, "latin1"), "b".repeat(8192));
  });

  for (const [place, begin] of [
    ["on the control directory's file system", (): string => newFolder()],
    ["on another file system", (): string | null => (MEMORY ? fs.mkdtempSync(path.join(MEMORY, "cairn-")) : null)],
  ] as const)
    test(
      `restore keeps and names a displaced file that was written to and made unreadable, ${place}`,
      { skip: canDrop ? false : "needs root and setpriv" },
      async (t) => {
        const folder = begin();
        if (folder === null) return t.skip("there is no such file system");
        t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
        const { first, at, write } = await savedFolder({ f: "first\n" }, { folder });
        write({ f: "second\n", gone: "second\n" });
        const open = ["f", "gone"].map((name) => fs.openSync(at(name), "a"));
        const change = (): void => {
          for (const fd of open) {
            fs.writeSync(fd, "late line\n");
            fs.fchmodSync(fd, 0);
            fs.closeSync(fd);
          }
        };
        const done = await whilePaused("restore.swapped", ["restore", first, "-C", folder], change, {
          prefix: DROPPED,
        });
        assert.equal(done.status, 0, done.stdout + done.stderr);
        assert.equal(done.warnings.length, 2, done.warnings.join("\n"));
        const kept = done.warnings.map((warning) => fs.readFileSync(/lies in (.*);/.exec(warning)![1]!, "utf8"));
        assert.deepEqual(kept, ["second\nlate line\n", "second\nlate line\n"]);
        const named = done.warnings.map((warning) => warning.split(" ")[0]).toSorted();
        assert.deepEqual(named, ["f", "gone"]);
        assert.deepEqual(cairnOk(["status", folder]).data["changes"], { added: 0, modified: 0, removed: 0 });
        assert.match(cairn(["doctor", "-C", folder]).stdout, /holds files that/);
        cairnOk(["undo", "-C", folder]);
        assert.equal(fs.readFileSync(at("f"), "utf8"), "second\n");
      },
    );

  test(
    "restore keeps and names a displaced file that got more attributes than can be listed",
    { skip: MEMORY === undefined ? "needs a file system in memory" : false },
    async (t) => {
      const folder = fs.mkdtempSync(path.join(MEMORY!, "cairn-"));
      t.after(() => fs.rmSync(folder, { recursive: true }));
      const { first, at, write } = await savedFolder({ f: "first\n" }, { folder });
      write({ f: "second\n" });
      const open = fs.openSync(at("f"), "a");
      t.after(() => fs.closeSync(open));
      const done = await whilePaused("restore.swapped", ["restore", first, "-C", folder], () => {
        const arena = newArena(256);
        for (let i = 0; i < 280; i++) {
          putName(arena, 0, Buffer.from(`user.${String(i).padStart(3, "0")}${"x".repeat(240)}`));
          if (syscalls().fsetxattr(open, arena, 0, arena, 0, 1) < 0) t.skip("it does not keep so many");
        }
      });
      assert.equal(done.status, 0, done.stdout + done.stderr);
      assert.equal(done.warnings.length, 1, done.warnings.join("\n"));
      const kept = /lies in (.*);/.exec(done.warnings[0]!)![1]!;
      assert.equal(fs.readFileSync(kept, "utf8"), "second\n");
      assert.equal(fs.statSync(kept).ino, fs.fstatSync(open).ino, "with its attributes");
    },
  );

  test("save stores a write through a memory mapping that did not change the file's time", async (t) => {
    if (spawnSync("python3", ["--version"]).error !== undefined) return t.skip("python3 is not installed");
    const folder = newFolder();
    const file = path.join(folder, "mapped");
    fs.writeFileSync(file, Buffer.alloc(8192, "a"));
    const script = `import mmap, sys
f = open(sys.argv[1], "r+b"); m = mmap.mmap(f.fileno(), 0)
for line in sys.stdin: m[0:4] = line.encode()[:4]; print("written", flush=True)`;
    const writer = spawn("python3", ["-c", script, file], { stdio: ["pipe", "pipe", "inherit"] });
    t.after(() => writer.kill());
    const said = lines(writer.stdout);
    const client = await clientOf(folder);
    const points = [];
    for (const text of ["one!", "two!", "thr!", "fou!"]) {
      writer.stdin.write(`${text}\n`);
      assert.equal(await said(), "written");
      points.push({ text, id: (await client.save()).save_point_id });
    }
    writer.stdin.end();
    for (const { text, id } of points) {
      await client.restore({ target: id });
      assert.equal(fs.readFileSync(file, "latin1").slice(0, 4), text);
    }
  });

  test("restore does not change a file outside the folder that has a hard link inside", async () => {
    const folder = newFolder();
    const outside = newFolder("outside");
    const file = path.join(folder, "f");
    fs.writeFileSync(path.join(outside, "f"), "of the store outside\n");
    fs.linkSync(path.join(outside, "f"), file);
    const client = await clientOf(folder);
    const { save_point_id: first } = await client.save();
    fs.chmodSync(file, 0o600);
    fs.lutimesSync(file, 5, 5);
    const { save_point_id: second } = await client.save();
    const before = readFolder(outside);
    await client.restore({ target: first });
    assertFolder(outside, before, "only its metadata differed");
    await client.restore({ target: second });
    fs.rmSync(file);
    fs.linkSync(path.join(outside, "f"), file);
    fs.writeFileSync(file, "written through the folder\n");
    const written = readFolder(outside);
    await client.restore({ target: first });
    assertFolder(outside, written, "its content differed");
    assert.equal(fs.readFileSync(file, "utf8"), "of the store outside\n");
  });

  test("restore and its undo detect a changed file whose size and time look unchanged", async () => {
    const { folder, client, first, at } = await savedFolder({ f: "first first\n" });
    for (let i = 0; i < 3; i++) {
      rewriteQuietly(at("f"));
      const now = readFolder(folder);
      const done = await client.restore({ target: first });
      assert.equal(fs.readFileSync(at("f"), "utf8"), "first first\n");
      await client.restore({ target: done.undo_id! });
      assertFolder(folder, now, `round ${i}`);
    }
  });

  test(
    "restore leaves and lists entries that it cannot read",
    { skip: canDrop ? false : "needs root and setpriv" },
    async () => {
      const { folder, first, at, write } = await savedFolder({ readable: "first\n", taken: "first\n" });
      const second = {
        taken: "second, and nobody may read it\n",
        secret: "cannot be read\n",
        "closed/inside": "cannot be seen\n",
      };
      write({ ...second, readable: "second\n" });
      for (const name of ["taken", "closed", "secret"]) fs.chmodSync(at(name), 0);
      const saved = cairn(["save", folder], { prefix: DROPPED });
      assert.equal(saved.status, 10, saved.stdout + saved.stderr);
      const done = cairn(["restore", first, "-C", folder], { prefix: DROPPED });
      assert.equal(done.status, 10, done.stdout + done.stderr);
      assert.deepEqual(
        leftOut(done.data)
          .map(({ path: where }) => where)
          .toSorted(),
        ["closed", "secret", "taken"],
      );
      assert.equal(fs.readFileSync(at("readable"), "utf8"), "first\n");
      for (const [name, text] of Object.entries(second)) assert.equal(fs.readFileSync(at(name), "utf8"), text);
    },
  );

  test(
    "restore keeps and lists entries that the target's save could not read",
    { skip: canDrop ? false : "needs root and setpriv" },
    async () => {
      const folder = newFolder();
      const at = (name: string): string => path.join(folder, name);
      fs.writeFileSync(at("a"), "first\n");
      fs.writeFileSync(at("secret"), "cannot be read yet\n");
      fs.mkdirSync(at("closed"));
      fs.writeFileSync(at("closed/inside"), "cannot be seen yet\n");
      for (const name of ["secret", "closed"]) fs.chmodSync(at(name), 0);
      const first = cairn(["save", folder], { prefix: DROPPED });
      assert.equal(first.status, 10, first.stdout + first.stderr);
      for (const name of ["secret", "closed"]) fs.chmodSync(at(name), 0o755);
      fs.writeFileSync(at("a"), "second\n");
      fs.writeFileSync(at("new"), "second\n");
      const target = (first.data["save_point"] as { save_point_id: string }).save_point_id;
      const plan = cairnOk(["restore", target, "--plan", "-C", folder]).data["plan"] as {
        entries: { path: string; action: string }[];
      };
      assert.deepEqual(
        plan.entries.filter(({ action }) => action === "keep").map((entry) => entry.path),
        ["closed", "closed/inside", "secret"],
      );
      const done = cairn(["restore", target, "-C", folder]);
      assert.equal(done.status, 10, done.stdout + done.stderr);
      assert.deepEqual(
        leftOut(done.data).map((entry) => entry.path),
        ["closed", "closed/inside", "secret"],
      );
      assert.deepEqual(fs.readdirSync(folder), ["a", "closed", "secret"]);
      assert.equal(fs.readFileSync(at("a"), "utf8"), "first\n");
      assert.equal(fs.readFileSync(at("closed/inside"), "utf8"), "cannot be seen yet\n");
    },
  );

  test("restore leaves mounted files and file systems alone and lists them", { skip: noRoot }, async (t) => {
    const files = { f: "first\n", env: "first\n", "sub/deep/file": "first\n" };
    const { folder, first, at } = await savedFolder(files);
    const outside = path.join(newFolder("outside"), "env");
    fs.writeFileSync(outside, "mounted\n");
    fs.rmSync(at("sub/deep"), { recursive: true });
    fs.mkdirSync(at("goes/mounted"), { recursive: true });
    for (const name of ["f", "goes/beside"]) fs.writeFileSync(at(name), "second\n");
    for (const how of [
      ["--bind", outside, at("env")],
      ["-t", "tmpfs", "none", at("sub")],
      ["-t", "tmpfs", "none", at("goes/mounted")],
    ]) {
      if (spawnSync("mount", how).status !== 0) return t.skip("no right to mount");
      t.after(() => spawnSync("umount", ["--lazy", how.at(-1)!]));
    }
    for (const name of ["sub/data", "goes/mounted/data"]) fs.writeFileSync(at(name), "of another file system\n");
    const done = cairn(["restore", first, "-C", folder]);
    assert.equal(done.status, 10, done.stdout + done.stderr);
    const left = leftOut(done.data).flatMap(({ path: where, reason }) => (reason === "mounted" ? [where] : []));
    for (const name of ["env", "sub"]) assert.ok(left.includes(name), done.stdout);
    assert.ok(
      left.some((name) => name.startsWith("goes")),
      done.stdout,
    );
    cairn(["save", "-C", folder]);
    assert.deepEqual(
      ["f", "env", "sub/data", "goes/mounted/data"].map((name) => fs.readFileSync(at(name), "utf8")),
      ["first\n", "mounted\n", "of another file system\n", "of another file system\n"],
    );
    assert.deepEqual([fs.readdirSync(at("sub")), fs.existsSync(at("goes/beside"))], [["data"], false]);
  });

  test("restore and undo handle file names with control characters, quotes and invalid UTF-8", async () => {
    const folder = newFolder();
    const names = [
      "-rf",
      "--json",
      "new\nline",
      "tab\there",
      "quote\"'`$(touch x)",
      "back\\slash",
      "*?[a]!#",
      " leading",
      "trailing ",
      "\u001b[31mred",
      "\u007f",
      "ü".repeat(127),
      "a".repeat(255),
      "…",
      "%2e%2e",
      "con",
      ".cairnignore2",
    ];
    const raw = names.map((name) => Buffer.from(name));
    raw.push(
      Buffer.from([0xff, 0xfe, 0x80]),
      Buffer.from("caf\xe9", "latin1"),
      Buffer.concat([Buffer.from([0xed, 0xa0, 0x80])]),
    );
    const fill = (text: string): void => {
      for (const name of raw) fs.writeFileSync(Buffer.concat([Buffer.from(`${folder}/`), name]), text);
    };
    fill("first\n");
    const client = await clientOf(folder);
    const { save_point_id: first } = await client.save();
    const before = readFolder(folder);
    fill("second\n");
    const second = readFolder(folder);
    const done = cairnOk(["restore", first, "-C", folder]);
    assert.equal((done.data["changes"] as { updated: number }).updated, raw.length);
    assertFolder(folder, before, "restored");
    cairnOk(["undo", "-C", folder]);
    assertFolder(folder, second, "undone");
    for (const name of raw) await client.restore({ target: first, paths: [name] });
    before.set("", readFolder(folder).get("")!);
    assertFolder(folder, before, "one by one");
    cairnOk(["restore", "head~1", "-C", folder, "--", path.join(folder, "-rf"), path.join(folder, "--json")]);
  });

  test("restore and undo handle paths longer than PATH_MAX", async () => {
    const folder = newFolder();
    const part = "d".repeat(200);
    spawnSync("python3", [
      "-c",
      `import os,sys\nos.chdir(sys.argv[1])\nfor i in range(25):\n os.mkdir("${part}"); os.chdir("${part}")\nopen("deep","w").write("first")`,
      folder,
    ]);
    const client = await clientOf(folder);
    const { save_point_id: first } = await client.save();
    const before = readFolder(folder);
    spawnSync("python3", [
      "-c",
      `import os,sys\nos.chdir(sys.argv[1])\nfor i in range(25):\n os.chdir("${part}")\nopen("deep","w").write("second"); open("new","w").write("x")`,
      folder,
    ]);
    const changed = readFolder(folder);
    await client.restore({ target: first });
    assertFolder(folder, before, "restored");
    await client.undo();
    assertFolder(folder, changed, "undone");
    fs.rmSync(folder, { recursive: true });
    fs.mkdirSync(folder);
    await client.restore({ target: "latest" });
    assertFolder(folder, before, "from nothing");
  });

  test("restore brings back modes, attributes and times without writing the content again", async () => {
    const { folder, client, at } = await savedFolder({ f: "same\n" });
    const file = at("f");
    const states = [];
    for (const change of [
      () => undefined,
      () => fs.chmodSync(file, 0o4711),
      () => setAttribute(file, "user.x", "1"),
      () => setAttribute(file, "user.x", "2"),
      () => fs.lutimesSync(file, 5, 5),
    ]) {
      change();
      const { save_point_id: id } = await client.save();
      states.push({ id, state: readFolder(folder), inode: fs.statSync(file).ino });
    }
    for (const { id, state, inode } of [...states].toReversed().concat(states)) {
      await client.restore({ target: id });
      assertFolder(folder, state, id);
      assert.equal(fs.statSync(file).ino, inode, "content is not written again");
    }
  });
});

function rewriteQuietly(file: string): void {
  const { size, atime, mtimeMs } = fs.statSync(file);
  const fd = fs.openSync(file, "r+");
  fs.writeSync(fd, Buffer.alloc(size, `${Math.random()}`));
  fs.futimesSync(fd, atime, mtimeMs / 1000);
  fs.closeSync(fd);
}

function lines(stream: NodeJS.ReadableStream): () => Promise<string> {
  let text = "";
  let wake = (): void => undefined;
  stream.on("data", (chunk: Buffer) => {
    text += chunk.toString();
    wake();
  });
  return async () => {
    while (!text.includes("\n")) await new Promise<void>((resolve) => (wake = resolve));
    const end = text.indexOf("\n");
    const line = text.slice(0, end);
    text = text.slice(end + 1);
    return line;
  };
}
