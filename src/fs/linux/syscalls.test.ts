import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { describe, test, type TestContext } from "node:test";
import { type Arena, newArena } from "../../native.ts";
import { openBelow } from "./open-below.ts";
import {
  AT_FDCWD,
  errnoName,
  evenLinkMode,
  newStatBuffer,
  openByNames,
  openDirectory,
  putName,
  RENAME,
  signedWide,
  STAT,
  type Syscalls,
  syscallError,
  syscalls,
  TYPE,
  wide,
} from "./syscalls.ts";

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_DIRECTORY, O_NOFOLLOW } = fs.constants;
const errno = os.constants.errno as unknown as Record<string, number>;
const ROOT = process.geteuid?.() === 0;

interface Subject {
  readonly sys: Syscalls;
  readonly folder: string;
  readonly fd: number;
  /** an arena with one name in it, at 0 */
  name(text: string | Uint8Array): Arena;
}

function subject(t: TestContext, sys: Syscalls, parent = os.tmpdir()): Subject {
  const folder = fs.mkdtempSync(path.join(parent, "cairn-syscalls-"));
  const fd = openDirectory(folder);
  t.after(() => {
    fs.closeSync(fd);
    fs.rmSync(folder, { recursive: true, force: true });
  });
  const name = (text: string | Uint8Array): Arena => {
    const arena = newArena(8192);
    putName(arena, 0, Buffer.from(text as string));
    return arena;
  };
  return { sys, folder, fd, name };
}

function create({ sys, fd, name }: Subject, file: string, content: string): number {
  const made = sys.open(fd, name(file), 0, O_RDWR | O_CREAT | O_EXCL, 0o640);
  assert.ok(made >= 0, errnoName(-made));
  const bytes = name(content);
  assert.equal(sys.write(made, bytes, 0, content.length, 0), content.length);
  return made;
}

/** What both implementations promise. */
function contract(label: string, make: () => Syscalls): void {
  void describe(label, () => {
    test("open, read, write and ftruncate work on a file named relative to an open directory", (t) => {
      const at = subject(t, make());
      const { sys, folder, fd, name } = at;
      const file = create(at, "file", "some text");
      const buffer = newArena(64);
      assert.equal(sys.read(file, buffer, 3, 10, 5), 4);
      assert.equal(Buffer.from(buffer.bytes.slice(3, 7)).toString(), "text");
      assert.equal(sys.read(file, buffer, 0, 10, 9), 0);
      assert.equal(sys.write(file, name("XY"), 0, 2, 5), 2);
      assert.equal(sys.ftruncate(file, 7), 0);
      assert.equal(sys.settle(file), 0);
      assert.equal(sys.close(file), 0);
      assert.equal(fs.readFileSync(path.join(folder, "file"), "utf8"), "some XY");
      assert.equal(sys.open(fd, name("file"), 0, O_RDWR | O_CREAT | O_EXCL, 0o600), -errno["EEXIST"]!);
      assert.equal(sys.open(fd, name("nothing"), 0, O_RDONLY, 0), -errno["ENOENT"]!);
      assert.equal(sys.open(fd, name("file"), 0, O_RDONLY | O_DIRECTORY, 0), -errno["ENOTDIR"]!);
      assert.equal(sys.close(file), -errno["EBADF"]!);
      assert.ok(sys.open(AT_FDCWD, name(path.join(folder, "file")), 0, O_RDONLY, 0) >= 0);
    });

    test("stat reports every type of entry, by name and by descriptor", (t) => {
      const at = subject(t, make());
      const { sys, folder, fd, name } = at;
      create(at, "file", "12345");
      assert.equal(sys.mkdir(fd, name("dir"), 0, 0o750), 0);
      assert.equal(sys.symlink(name(Buffer.from([0xff, 0x2f])), 0, fd, name("link"), 0), 0);
      assert.equal(sys.mknod(fd, name("pipe"), 0, (TYPE.PIPE << 12) | 0o640, 0, 0), 0);
      // A directory whose name is not ASCII, by its path.
      const odd = path.join(folder, "é");
      fs.mkdirSync(odd);
      assert.equal(sys.mknod(AT_FDCWD, name(path.join(odd, "pipe")), 0, (TYPE.PIPE << 12) | 0o640, 0, 0), 0);
      fs.rmSync(odd, { recursive: true });
      const device = ROOT && sys.mknod(fd, name("disk"), 0, (TYPE.BLOCKDEV << 12) | 0o600, 259, 70_000) === 0;
      const stat = newStatBuffer();
      for (const entry of ["file", "dir", "link", "pipe", ...(device ? ["disk"] : [])]) {
        assert.equal(sys.stat(fd, name(entry), 0, stat), 0);
        const { words } = stat;
        const expected = fs.lstatSync(path.join(folder, entry), { bigint: true });
        assert.equal(words[STAT.MODE]! & 0xffff, Number(expected.mode), entry);
        assert.deepEqual(
          [
            wide(words, STAT.SIZE),
            wide(words, STAT.INO),
            words[STAT.NLINK],
            words[STAT.UID],
            words[STAT.GID],
            wide(words, STAT.BLOCKS),
          ],
          [expected.size, expected.ino, expected.nlink, expected.uid, expected.gid, expected.blocks].map(Number),
          entry,
        );
        assert.equal(
          BigInt(signedWide(words, STAT.MTIME)) * 1_000_000_000n + BigInt(words[STAT.MTIME_NS]!),
          expected.mtimeNs,
        );
        assert.equal(
          BigInt(signedWide(words, STAT.CTIME)) * 1_000_000_000n + BigInt(words[STAT.CTIME_NS]!),
          expected.ctimeNs,
        );
        if (entry === "disk") assert.deepEqual([words[STAT.RDEV_MAJOR], words[STAT.RDEV_MINOR]], [259, 70_000]);
      }
      assert.equal(sys.stat(fd, name("nothing"), 0, stat), -errno["ENOENT"]!);
      assert.equal(sys.fstat(fd, stat), 0);
      assert.equal(wide(stat.words, STAT.INO), fs.statSync(folder).ino);
      const target = newArena(64);
      assert.equal(sys.readlink(fd, name("link"), 0, target), 2);
      assert.deepEqual([...target.bytes.subarray(0, 2)], [0xff, 0x2f]);
      assert.equal(sys.readlink(fd, name("file"), 0, target), -errno["EINVAL"]!);
    });

    test("link, and rename with NOREPLACE, fail with EEXIST instead of replacing an entry", (t) => {
      const at = subject(t, make());
      const { sys, folder, fd, name } = at;
      const read = (file: string): string => fs.readFileSync(path.join(folder, file), "utf8");
      sys.close(create(at, "a", "A"));
      sys.close(create(at, "b", "B"));
      for (const dir of ["d", "e", "full"]) sys.mkdir(fd, name(dir), 0, 0o700);
      fs.writeFileSync(path.join(folder, "full/x"), "");
      assert.equal(sys.link(fd, name("a"), 0, fd, name("a2"), 0), 0);
      assert.equal(sys.link(fd, name("a"), 0, fd, name("b"), 0), -errno["EEXIST"]!);
      assert.equal(fs.statSync(path.join(folder, "a")).nlink, 2);
      const rename = (from: string, to: string, flags: number): number =>
        sys.rename(fd, name(from), 0, fd, name(to), 0, flags);
      for (const to of ["b", "d", "full"]) assert.equal(rename("a", to, RENAME.NOREPLACE), -errno["EEXIST"]!, to);
      for (const to of ["b", "e", "full"]) assert.equal(rename("d", to, RENAME.NOREPLACE), -errno["EEXIST"]!, to);
      assert.equal(rename("nothing", "new", RENAME.NOREPLACE), -errno["ENOENT"]!);
      assert.equal(rename("a", "new", RENAME.NOREPLACE), 0);
      assert.equal(rename("full", "moved", RENAME.NOREPLACE), 0);
      sys.symlink(name("nowhere"), 0, fd, name("dangling"), 0);
      assert.equal(rename("b", "dangling", RENAME.NOREPLACE), -errno["EEXIST"]!);
      assert.equal(rename("dangling", "dangling2", RENAME.NOREPLACE), 0);
      assert.deepEqual(fs.readdirSync(folder).toSorted(), ["a2", "b", "d", "dangling2", "e", "moved", "new"]);
      assert.equal(rename("b", "new", 0), 0);
      assert.deepEqual([read("new"), read("a2"), fs.readdirSync(path.join(folder, "moved"))], ["B", "A", ["x"]]);
      assert.equal(sys.unlink(fd, name("moved"), 0, true), -errno["ENOTEMPTY"]!);
      assert.equal(sys.unlink(fd, name("d"), 0, true), 0);
      assert.equal(sys.unlink(fd, name("new"), 0, false), 0);
      assert.equal(sys.unlink(fd, name("new"), 0, false), -errno["ENOENT"]!);
      const exchanged = rename("a2", "e", RENAME.EXCHANGE);
      assert.equal(exchanged, 0);
    });

    test("chmod, chown and utimens work by name and by descriptor", (t) => {
      const at = subject(t, make());
      const { sys, folder, fd, name } = at;
      const file = create(at, "file", "x");
      sys.symlink(name("file"), 0, fd, name("link"), 0);
      assert.equal(sys.fchmod(file, 0o4751), 0);
      assert.equal(fs.statSync(path.join(folder, "file")).mode & 0o7777, 0o4751);
      assert.equal(sys.chmod(fd, name("file"), 0, 0o600), 0);
      assert.equal(fs.statSync(path.join(folder, "file")).mode & 0o7777, 0o600);
      {
        // Somebody may put a link in the place of an entry that is about to get its mode.
        assert.ok(sys.chmod(fd, name("link"), 0, 0o644) < 0);
        assert.equal(fs.statSync(path.join(folder, "file")).mode & 0o7777, 0o600);
      }
      if (ROOT) {
        assert.equal(sys.fchown(file, 12, 4_000_000_000), 0);
        assert.equal(sys.lchown(fd, name("link"), 0, 34, 56), 0);
        const [one, two] = ["file", "link"].map((entry) => fs.lstatSync(path.join(folder, entry)));
        assert.deepEqual([one!.uid, one!.gid, two!.uid, two!.gid], [12, 4_000_000_000, 34, 56]);
      }
      const tolerance = 0;
      for (const [seconds, nanoseconds] of [
        [1_700_000_000, 123_456_789],
        [0, 0],
        [4_000_000_000, 999_999_999],
        [1_700_000_000, 1],
      ] as const) {
        assert.equal(sys.utimens(file, name(""), 0, seconds, nanoseconds), 0);
        assert.equal(sys.utimens(fd, name("link"), 0, seconds, nanoseconds), 0);
        const exact = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
        for (const entry of ["file", "link"]) {
          const { mtimeNs } = fs.lstatSync(path.join(folder, entry), { bigint: true });
          assert.ok(Math.abs(Number(mtimeNs - exact)) <= tolerance, `${entry} ${exact}: ${mtimeNs}`);
        }
      }
      assert.equal(sys.utimens(file, name(""), 0, -2, 250_000_000), 0);
      assert.equal(fs.statSync(path.join(folder, "file"), { bigint: true }).mtimeNs, -1_750_000_000n);
    });

    test("extended attributes can be set, listed, read and removed, or every change fails with EOPNOTSUPP", (t) => {
      const at = subject(t, make());
      const { sys, fd, name } = at;
      const file = create(at, "file", "x");
      const out = newArena(1024);
      const set = sys.fsetxattr(file, name("user.one"), 0, name("value"), 0, 5);
      if (set < 0) {
        assert.equal(set, -errno["EOPNOTSUPP"]!);
        assert.equal(sys.flistxattr(file, out), 0);
        return;
      }
      assert.equal(sys.lsetxattr(fd, name("file"), 0, Buffer.from("user.two"), new Uint8Array(0)), 0);
      const listed = Buffer.from(out.bytes.subarray(0, sys.flistxattr(file, out)))
        .toString()
        .split("\0")
        .filter((each) => each !== "");
      assert.deepEqual(listed.filter((each) => each.startsWith("user.")).toSorted(), ["user.one", "user.two"]);
      assert.equal(sys.llistxattr(fd, name("file"), 0, out), sys.flistxattr(file, out));
      assert.equal(sys.fgetxattr(file, name("user.one"), 0, out, 7), 5);
      assert.equal(Buffer.from(out.bytes.subarray(7, 12)).toString(), "value");
      assert.equal(sys.lgetxattr(fd, name("file"), 0, Buffer.from("user.two"), out, 0), 0);
      assert.equal(sys.fremovexattr(file, name("user.one"), 0), 0);
      assert.equal(sys.fgetxattr(file, name("user.one"), 0, out, 0), -errno["ENODATA"]!);
    });

    test("seek finds the data and the holes of a sparse file", (t) => {
      const at = subject(t, make());
      const { sys } = at;
      const file = create(at, "file", "x");
      sys.ftruncate(file, 1_000_000);
      const hole = sys.seek(file, 0, 4);
      assert.ok(hole <= 1_000_000);
      assert.equal(sys.seek(file, 0, 3), 0);
      assert.equal(sys.seek(file, 1_000_000, 3), -errno["ENXIO"]!);
    });

    test("openBelow opens a path below a directory, and refuses symbolic links and ..", (t) => {
      const at = subject(t, make());
      const { sys, folder, fd } = at;
      fs.mkdirSync(path.join(folder, "a/b/c"), { recursive: true });
      fs.writeFileSync(path.join(folder, "a/b/file"), "x");
      fs.symlinkSync("b", path.join(folder, "a/link"));
      fs.symlinkSync("/", path.join(folder, "out"));
      const scratch = newArena(8192);
      const byNames = {
        ...sys,
        openBelow: (d: number, names: Arena, n: number, flags: number) => openByNames(sys, d, names, n, flags),
      };
      for (const way of [sys, byNames]) {
        const open = (below: string, flags = O_RDONLY): number =>
          openBelow(way, fd, Buffer.from(below), flags, scratch);
        for (const good of ["", "a", "a/b", "a/b/c", "a/b/file"]) {
          const found = open(good);
          assert.ok(found >= 0, `${good}: ${errnoName(-found)}`);
          assert.equal(fs.fstatSync(found).ino, fs.statSync(path.join(folder, good)).ino);
          sys.close(found);
        }
        const links = [-errno["ELOOP"]!, -errno["ENOTDIR"]!];
        for (const bad of ["a/link/c", "a/link", "out/etc", "out"])
          assert.ok(links.includes(open(bad, O_RDONLY | O_NOFOLLOW)), bad);
        for (const bad of ["..", "a/../../etc"]) assert.equal(open(bad), -errno["EXDEV"]!, bad);
        assert.equal(open("a/x/y"), -errno["ENOENT"]!);
        assert.equal(open("a/b/file/x"), -errno["ENOTDIR"]!);
      }
    });
  });
}

contract("system calls through the C library", syscalls);

test("evenLinkMode sets the mode of a symbolic link to 0777, and changes no other entry's mode", () => {
  const { words } = newStatBuffer();
  for (const [told, evened] of [
    [0o120755, 0o120777],
    [0o120000, 0o120777],
    [0o100755, 0o100755],
    [0o140755, 0o140755],
    [0o40700, 0o40700],
  ] as const) {
    words[STAT.MODE] = told;
    evenLinkMode(words);
    assert.equal(words[STAT.MODE], evened);
  }
});

test("putName throws ENAMETOOLONG for a name that does not fit into the arena", () => {
  const arena = newArena(64);
  assert.equal(putName(arena, 10, Buffer.alloc(53, "n")), 64);
  assert.equal(arena.bytes[63], 0);
  for (const length of [54, 5000])
    assert.throws(() => putName(arena, 10, Buffer.alloc(length, "n")), { details: { errno: "ENAMETOOLONG" } });
});

test("syscallError converts an errno to a CairnError whose message names the errno", () => {
  const error = syscallError(-errno["ENOSPC"]!, "cannot write x", "make room");
  assert.deepEqual([error.code, error.message, error.hint], ["no_space", "cannot write x: ENOSPC", "make room"]);
  assert.equal(errnoName(99_999), "errno 99999");
});

test("without /proc, chmod changes the mode of a file and refuses a symbolic link", (t) => {
  if (!ROOT) return t.skip("needs Linux's calls and root");
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-syscalls-"));
  t.after(() => fs.rmSync(folder, { recursive: true }));
  const script = `
import { openDirectory, putName, syscalls } from ${JSON.stringify(import.meta.resolve("./syscalls.ts"))};
import { newArena } from ${JSON.stringify(import.meta.resolve("../../native.ts"))};
const [sys, fd, name] = [syscalls(), openDirectory(process.argv[1]), newArena(64)];
const chmod = (text) => (putName(name, 0, Buffer.from(text)), sys.chmod(fd, name, 0, 0o640));
console.log(chmod("file"), chmod("link") < 0);
`;
  for (const name of ["file", "target"]) fs.writeFileSync(path.join(folder, name), "", { mode: 0o600 });
  fs.symlinkSync("target", path.join(folder, "link"));
  const run = 'mount -t tmpfs none /proc && exec "$0" --input-type=module -e "$1" "$2"';
  const child = spawnSync("unshare", ["-m", "sh", "-c", run, process.execPath, script, folder], { encoding: "utf8" });
  if (child.error !== undefined || child.stderr.includes("mount:")) return t.skip("nothing can be mounted over /proc");
  assert.equal(child.stdout, "0 true\n", child.stderr);
  const modes = ["file", "target"].map((name) => fs.statSync(path.join(folder, name)).mode & 0o777);
  assert.deepEqual(modes, [0o640, 0o600]);
});
