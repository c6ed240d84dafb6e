import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { makeNode, setAttribute } from "../../src/engines/testing-edits.ts";
import { TYPE } from "../../src/fs/syscalls.ts";
import type { Chance } from "./walk.ts";

/**
 * Random changes of a folder with everything that a name, a type and an attribute can be. Paths are latin1 of their bytes,
 * relative to the folder, which is the empty path. Names are sorted before one is chosen: file systems list them by hashes
 * of their own.
 */

/** `rules`: ignore files too; `system`: devices, owners, access lists and what only root may set. */
export type EditSet = "plain" | "rules" | "system";

interface Edit {
  name: string;
  weight: number;
  set: EditSet;
  /** What there must be one of. */
  takes: "nothing" | "file" | "directory";
  run: (on: Editing) => void;
}

/** More entries than that, and edits only remove. */
const ENTRIES = 45;
const LONGEST = 900;
const SECOND = 1_000_000_000n;

/** Errors of an edit that the folder as it is does not allow; then it is none. */
const NOT_NOW = new Set(
  "EINVAL ENOTEMPTY EEXIST EISDIR ENOTDIR EMLINK EPERM ENOENT ENAMETOOLONG ENXIO EOPNOTSUPP ELOOP".split(" "),
);

const ODD_NAMES = [
  ..."- -dash ~ * [x] back\\slash #h !n a. a.o b.log Case case \x01\x7f \xf0\x9f\x98\x80 \xc3\xa9 e\xcc\x81 f\xff\xfe".split(
    " ",
  ),
  "new\nline",
  " lead ",
  "tail ",
  "\xef\xbf\xbd",
  ".cairn-tmp-1",
  "x".repeat(255),
];
const PATTERNS = [
  ..."a b/ *.o !a.o /c d/* !d/a **/m* * !*/ !.cairnignore a? [ab]* \\#h \\!n !e e/** z*/ c/**/a #x Case new* \xff f\xff\xfe".split(
    " ",
  ),
  ..."back\\\\slash \\* [[:upper:]]* a\r b/a /a/b ** .cairnignore".split(" "),
  "tail\\ ",
  "  ",
  "*\n!a*",
  "/*\n!/a\n!/d",
];

/** One edit under way. */
interface Editing {
  folder: string;
  chance: Chance;
  /** that the edit is about, "" where it takes none */
  file: string;
  directory: string;
  files: readonly string[];
  directories: readonly string[];
}

function at({ folder }: Pick<Editing, "folder">, name: string): Buffer {
  return Buffer.from(name === "" ? folder : `${folder}/${name}`, "latin1");
}

function newName(chance: Chance): string {
  const kind = chance.below(24);
  if (kind < 8) return chance.pick(["a", "b", "c", "d", "e"]);
  if (kind < 14) return chance.pick(ODD_NAMES);
  return `${chance.pick(["a", "m", "z", "A"])}${chance.below(40)}`;
}

/** A path that nothing has, in one of those directories. */
function fresh(on: Editing, directories = on.directories): string {
  for (;;) {
    const parent = on.chance.pick(directories);
    const own = `${parent}${parent === "" ? "" : "/"}${newName(on.chance)}`;
    if (own.length < LONGEST && fs.lstatSync(at(on, own), { throwIfNoEntry: false }) === undefined) return own;
    if (on.chance.oneIn(50)) return `none${on.chance.below(1e9)}`;
  }
}

function newBytes(chance: Chance): Buffer {
  const kind = chance.below(12);
  if (kind === 11) return Buffer.alloc(chance.pick([1, 4096, 65_536]));
  const small = [0, 1, 2, 10, 100, 4095, 4096, 4097, 8192];
  return Buffer.alloc(chance.pick(kind < 9 ? small : [70_000, 131_072, 600_000]), `${chance.below(1e9)}-`);
}

function newFile(on: Editing, place = fresh(on)): void {
  fs.writeFileSync(at(on, place), newBytes(on.chance));
}

function newLink(on: Editing, place = fresh(on)): void {
  fs.symlinkSync(on.chance.pick(["nowhere", "/etc/passwd", "..", ".", "a", "a/b/c", "x".repeat(1000)]), at(on, place));
}

function newDirectory(on: Editing, place = fresh(on)): void {
  fs.mkdirSync(at(on, place), { mode: on.chance.pick([0o755, 0o700, 0o777]) });
}

function newPipe(on: Editing, place = fresh(on)): void {
  makeNode(at(on, place), TYPE.PIPE);
}

function newSparse(on: Editing): void {
  const fd = fs.openSync(at(on, fresh(on)), "w");
  fs.ftruncateSync(fd, on.chance.pick([1 << 20, 300_001, 5 << 20]));
  if (on.chance.oneIn(2)) fs.writeSync(fd, `data ${on.chance.below(1e6)}`, on.chance.below(250_000));
  fs.closeSync(fd);
}

function ofFile(on: Editing, change: (file: Buffer, size: number) => void): void {
  const file = at(on, on.file);
  const stat = fs.lstatSync(file);
  if (stat.isFile()) change(file, stat.size);
}

/** One byte, and the modification time set back: only the change time tells. */
function quietly(on: Editing): void {
  ofFile(on, (file, size) => {
    if (size === 0) return;
    const { mtimeNs } = fs.lstatSync(file, { bigint: true });
    const nanoseconds = ((mtimeNs % SECOND) + SECOND) % SECOND;
    const time = `@${(mtimeNs - nanoseconds) / SECOND}.${`${nanoseconds}`.padStart(9, "0")}`;
    const fd = fs.openSync(file, "r+");
    fs.writeSync(fd, Buffer.from([on.chance.below(256)]), 0, 1, on.chance.below(size));
    execFileSync("touch", ["-m", "-d", time, "/proc/self/fd/3"], { stdio: ["ignore", "ignore", "inherit", fd] });
    fs.closeSync(fd);
  });
}

function setTimes(on: Editing, name: string): void {
  const times = [0, 1, -1, 1.5, 2e9, 4e9, 1e9 + on.chance.below(1e6), 1_700_000_000.123_456];
  fs.lutimesSync(at(on, name), 1, on.chance.pick(times));
}

function swap(on: Editing, one: string, other: string): void {
  if (one === other) return;
  const aside = at(on, "swapped aside");
  fs.renameSync(at(on, one), aside);
  fs.renameSync(at(on, other), at(on, one));
  fs.renameSync(aside, at(on, other));
}

/** Directories that do not lie in the chosen one. */
function outside(on: Editing): string[] {
  return on.directories.filter((each) => each !== on.directory && !each.startsWith(`${on.directory}/`));
}

/** Another directory that neither lies in the chosen one nor holds it; null where there is none. */
function apart(on: Editing): string | null {
  const other = on.chance.pick(outside(on));
  return other === "" || on.directory.startsWith(`${other}/`) ? null : other;
}

function remove(place: Buffer): void {
  fs.rmSync(place, { recursive: true });
}

/** A POSIX access list as the kernel takes it. */
function accessList(chance: Chance): Buffer {
  const rows = [
    [1, 6 + chance.below(2), -1],
    [2, chance.below(8), chance.below(3) + 1000],
    [4, chance.below(8), -1],
    [0x10, 4 + chance.below(4), -1],
    [0x20, chance.below(8), -1],
  ] as const;
  const bytes = Buffer.alloc(4 + rows.length * 8);
  bytes.writeUInt32LE(2);
  for (const [i, [tag, rights, id]] of rows.entries()) {
    bytes.writeUInt16LE(tag, 4 + i * 8);
    bytes.writeUInt16LE(rights, 6 + i * 8);
    bytes.writeInt32LE(id, 8 + i * 8);
  }
  return bytes;
}

const CAPABILITY = Buffer.from("0100000200200000000000000000000000000000", "hex");

function writeRules(on: Editing): void {
  const parent = on.chance.oneIn(3) ? on.chance.pick(on.directories) : "";
  const place = at(on, `${parent}${parent === "" ? "" : "/"}.cairnignore`);
  if (on.chance.oneIn(5)) return fs.rmSync(place, { recursive: true, force: true });
  const stat = fs.lstatSync(place, { throwIfNoEntry: false });
  if (stat !== undefined && !stat.isFile()) return;
  const lines = Array.from({ length: 1 + on.chance.below(3) }, () => on.chance.pick(PATTERNS));
  fs.writeFileSync(place, Buffer.from(lines.join("\n") + on.chance.pick(["\n", ""]), "latin1"));
}

function copyDirectory(on: Editing): void {
  if (on.files.length + on.directories.length > ENTRIES / 2) return;
  const [from, to] = [at(on, on.directory), at(on, fresh(on, [""]))];
  // Paths that are not UTF-8 are no arguments.
  if ([from, to].some((each) => !/^[ -~]*$/.test(each.toString("latin1")))) return;
  execFileSync("cp", ["-a", "--", from.toString(), to.toString()], { stdio: "ignore" });
}

const EDITS: readonly Edit[] = [
  { name: "create", weight: 6, set: "plain", takes: "nothing", run: newFile },
  { name: "mkdir", weight: 3, set: "plain", takes: "nothing", run: newDirectory },
  { name: "symlink", weight: 1, set: "plain", takes: "nothing", run: newLink },
  {
    name: "odd symlink",
    weight: 0.5,
    set: "system",
    takes: "nothing",
    run: (on) => fs.symlinkSync(Buffer.from([0xff, 0xfe]), at(on, fresh(on))),
  },
  { name: "pipe", weight: 1, set: "plain", takes: "nothing", run: newPipe },
  { name: "sparse", weight: 1, set: "plain", takes: "nothing", run: newSparse },
  {
    name: "socket",
    weight: 1,
    set: "system",
    takes: "nothing",
    run: (on) => void makeNode(at(on, fresh(on)), TYPE.SOCKET),
  },
  {
    name: "device",
    weight: 1,
    set: "system",
    takes: "nothing",
    run: (on) => {
      const type = on.chance.pick([TYPE.CHARDEV, TYPE.BLOCKDEV]);
      makeNode(at(on, fresh(on)), type, [1 + on.chance.below(3), on.chance.below(5)]);
    },
  },
  { name: "rules", weight: 3, set: "rules", takes: "nothing", run: writeRules },
  {
    name: "root mode",
    weight: 0.5,
    set: "system",
    takes: "nothing",
    run: (on) => fs.chmodSync(on.folder, on.chance.pick([0o755, 0o700, 0o1777])),
  },
  {
    name: "write",
    weight: 2,
    set: "plain",
    takes: "file",
    run: (on) => ofFile(on, (file) => fs.writeFileSync(file, newBytes(on.chance))),
  },
  {
    name: "append",
    weight: 1,
    set: "plain",
    takes: "file",
    run: (on) => ofFile(on, (file) => fs.appendFileSync(file, newBytes(on.chance))),
  },
  { name: "quiet", weight: 2, set: "plain", takes: "file", run: quietly },
  {
    name: "truncate",
    weight: 1,
    set: "plain",
    takes: "file",
    run: (on) => ofFile(on, (file, size) => fs.truncateSync(file, on.chance.below(Math.min(size, 1e6) + 10_000))),
  },
  {
    name: "punch",
    weight: 1,
    set: "plain",
    takes: "file",
    run: (on) =>
      ofFile(on, (file, size) => {
        if (size <= 8192) return;
        const fd = fs.openSync(file, "r+");
        const hole = ["-p", "-o", "4096", "-l", "4096", "/proc/self/fd/3"];
        execFileSync("fallocate", hole, { stdio: ["ignore", "ignore", "ignore", fd] });
        fs.closeSync(fd);
      }),
  },
  { name: "remove", weight: 1, set: "plain", takes: "file", run: (on) => fs.unlinkSync(at(on, on.file)) },
  {
    name: "rename",
    weight: 2,
    set: "plain",
    takes: "file",
    run: (on) => fs.renameSync(at(on, on.file), at(on, fresh(on))),
  },
  {
    name: "over",
    weight: 1,
    set: "plain",
    takes: "file",
    run: (on) => fs.renameSync(at(on, on.chance.pick(on.files)), at(on, on.file)),
  },
  { name: "swap", weight: 1, set: "plain", takes: "file", run: (on) => swap(on, on.file, on.chance.pick(on.files)) },
  {
    name: "link",
    weight: 2,
    set: "plain",
    takes: "file",
    run: (on) => fs.linkSync(at(on, on.file), at(on, fresh(on))),
  },
  { name: "times", weight: 1, set: "plain", takes: "file", run: (on) => setTimes(on, on.file) },
  {
    name: "type",
    weight: 2,
    set: "plain",
    takes: "file",
    run: (on) => {
      fs.unlinkSync(at(on, on.file));
      on.chance.pick([newFile, newLink, newPipe, newDirectory])(on, on.file);
    },
  },
  {
    name: "directory for file",
    weight: 1,
    set: "plain",
    takes: "file",
    run: (on) => {
      fs.unlinkSync(at(on, on.file));
      newDirectory(on, on.file);
      newFile(on, `${on.file}/${newName(on.chance)}`);
    },
  },
  {
    name: "unlink",
    weight: 1,
    set: "plain",
    takes: "file",
    run: (on) =>
      ofFile(on, (file) => {
        const content = fs.readFileSync(file);
        fs.unlinkSync(file);
        fs.writeFileSync(file, content);
      }),
  },
  {
    name: "mode",
    weight: 3,
    set: "plain",
    takes: "file",
    run: (on) => {
      if (fs.lstatSync(at(on, on.file)).isSymbolicLink()) return;
      fs.chmodSync(at(on, on.file), on.chance.pick([0o644, 0o600, 0o4755, 0o2755, 0o444, 0, 0o1644, 0o7777]));
    },
  },
  {
    name: "attribute",
    weight: 2,
    set: "plain",
    takes: "file",
    run: (on) => {
      const value = on.chance.pick(["", "1", "2", "\0\xff", "v".repeat(900)]);
      setAttribute(
        at(on, on.file),
        on.chance.pick(["user.a", "user.b", `user.${"n".repeat(240)}`]),
        Buffer.from(value, "latin1"),
      );
    },
  },
  {
    name: "system attribute",
    weight: 2,
    set: "system",
    takes: "file",
    run: (on) => {
      const kind = on.chance.below(4);
      if (kind === 0) ofFile(on, (file) => void setAttribute(file, "security.capability", CAPABILITY));
      else if (kind === 1) setAttribute(at(on, on.file), "trusted.t", `${on.chance.below(9)}`);
      else setAttribute(at(on, on.file), "system.posix_acl_access", accessList(on.chance));
    },
  },
  {
    name: "owner",
    weight: 1,
    set: "system",
    takes: "file",
    run: (on) => fs.lchownSync(at(on, on.file), on.chance.below(3), on.chance.below(3)),
  },
  { name: "rmdir", weight: 1, set: "plain", takes: "directory", run: (on) => remove(at(on, on.directory)) },
  {
    name: "rename directory",
    weight: 2,
    set: "plain",
    takes: "directory",
    run: (on) => fs.renameSync(at(on, on.directory), at(on, fresh(on, outside(on)))),
  },
  {
    name: "swap directories",
    weight: 1,
    set: "plain",
    takes: "directory",
    run: (on) => {
      const other = apart(on);
      if (other !== null) swap(on, on.directory, other);
    },
  },
  {
    name: "directory over",
    weight: 1,
    set: "plain",
    takes: "directory",
    run: (on) => {
      const other = apart(on);
      if (other === null) return;
      remove(at(on, other));
      fs.renameSync(at(on, on.directory), at(on, other));
    },
  },
  {
    name: "file for directory",
    weight: 1,
    set: "plain",
    takes: "directory",
    run: (on) => {
      remove(at(on, on.directory));
      on.chance.pick([newFile, newLink, newPipe])(on, on.directory);
    },
  },
  { name: "copy directory", weight: 1, set: "plain", takes: "directory", run: copyDirectory },
  { name: "directory times", weight: 1, set: "plain", takes: "directory", run: (on) => setTimes(on, on.directory) },
  {
    name: "directory mode",
    weight: 2,
    set: "plain",
    takes: "directory",
    run: (on) => fs.chmodSync(at(on, on.directory), on.chance.pick([0o755, 0o700, 0o1777, 0o2755, 0, 0o555])),
  },
  {
    name: "directory attribute",
    weight: 1,
    set: "plain",
    takes: "directory",
    run: (on) => void setAttribute(at(on, on.directory), on.chance.pick(["user.a", "user.b"]), `${on.chance.below(9)}`),
  },
  {
    name: "directory access list",
    weight: 1,
    set: "system",
    takes: "directory",
    run: (on) => {
      const name = on.chance.pick(["system.posix_acl_access", "system.posix_acl_default"]);
      setAttribute(at(on, on.directory), name, accessList(on.chance));
    },
  },
  {
    name: "directory owner",
    weight: 1,
    set: "system",
    takes: "directory",
    run: (on) => fs.lchownSync(at(on, on.directory), on.chance.below(3), on.chance.below(3)),
  },
];

const REMOVING = EDITS.filter(({ name }) => name === "remove" || name === "rmdir");

/** One random change of the sets, and its name. */
export function editFolder(folder: string, chance: Chance, sets: ReadonlySet<EditSet>): string {
  const { files, directories } = listed(folder);
  const [file, directory] = [chance.pick(files) ?? "", chance.pick(directories.slice(1)) ?? ""];
  const isFull = files.length + directories.length > ENTRIES;
  const possible = (isFull ? REMOVING : EDITS).filter(({ set, takes }) => {
    const is = takes === "file" ? file : takes === "directory" ? directory : "any";
    return sets.has(set) && is !== "";
  });
  const edit = chance.weighed(possible);
  const name =
    `${edit.name} ${edit.takes === "nothing" ? "" : JSON.stringify(edit.takes === "file" ? file : directory)}`.trim();
  try {
    edit.run({ folder, chance, file, directory, files, directories });
  } catch (error) {
    if (!NOT_NOW.has((error as NodeJS.ErrnoException).code ?? "")) throw error;
    return `${name} (${(error as NodeJS.ErrnoException).code})`;
  }
  return name;
}

/** Paths of directories, the folder itself first, and of all others. */
function listed(folder: string): { files: string[]; directories: string[] } {
  const directories = [""];
  const files: string[] = [];
  for (const parent of directories) {
    const inside = fs.readdirSync(at({ folder }, parent), { withFileTypes: true, encoding: "buffer" });
    for (const entry of inside.toSorted((a, b) => Buffer.compare(a.name, b.name))) {
      const own = `${parent}${parent === "" ? "" : "/"}${entry.name.toString("latin1")}`;
      (entry.isDirectory() ? directories : files).push(own);
    }
  }
  return { files, directories };
}
