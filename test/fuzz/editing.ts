import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { makeNode } from "../../src/workspace/store/testing-edits.ts";
import { TYPE } from "../../src/fs/linux/syscalls.ts";
import type { Chance } from "./walk.ts";

/** What edits of a folder are made of. Paths are latin1 of their bytes, relative to the folder, which is the empty path. */

/**
 * `rules`: ignore files too; `system`: devices, owners, access lists and what only root may set; `rights`: entries that
 * {@link SOMEBODY} has and may not read, and that others have.
 */
export type EditSet = "plain" | "rules" | "system" | "rights";

/** Whose entries those of `rights` are. */
export const SOMEBODY = 65_534;
export const OTHERS = [0, 1000, SOMEBODY, SOMEBODY];

/** More entries than that, and edits only remove. */
export const ENTRIES = 45;
const LONGEST = 900;
const SECOND = 1_000_000_000n;

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
export interface Editing {
  folder: string;
  chance: Chance;
  /** that the edit is about, "" where it takes none */
  file: string;
  directory: string;
  files: readonly string[];
  directories: readonly string[];
}

export function at({ folder }: Pick<Editing, "folder">, name: string): Buffer {
  return Buffer.from(name === "" ? folder : `${folder}/${name}`, "latin1");
}

export function newName(chance: Chance): string {
  const kind = chance.below(24);
  if (kind < 8) return chance.pick(["a", "b", "c", "d", "e"]);
  if (kind < 14) return chance.pick(ODD_NAMES);
  return `${chance.pick(["a", "m", "z", "A"])}${chance.below(40)}`;
}

/** A path that nothing has, in one of those directories. */
export function fresh(on: Editing, directories = on.directories): string {
  for (;;) {
    const parent = on.chance.pick(directories);
    const own = `${parent}${parent === "" ? "" : "/"}${newName(on.chance)}`;
    if (own.length < LONGEST && fs.lstatSync(at(on, own), { throwIfNoEntry: false }) === undefined) return own;
    if (on.chance.oneIn(50)) return `none${on.chance.below(1e9)}`;
  }
}

export function newBytes(chance: Chance): Buffer {
  const kind = chance.below(12);
  if (kind === 11) return Buffer.alloc(chance.pick([1, 4096, 65_536]));
  const small = [0, 1, 2, 10, 100, 4095, 4096, 4097, 8192];
  return Buffer.alloc(chance.pick(kind < 9 ? small : [70_000, 131_072, 600_000]), `${chance.below(1e9)}-`);
}

export function newFile(on: Editing, place = fresh(on)): void {
  fs.writeFileSync(at(on, place), newBytes(on.chance));
}

export function newLink(on: Editing, place = fresh(on)): void {
  fs.symlinkSync(on.chance.pick(["nowhere", "/etc/passwd", "..", ".", "a", "a/b/c", "x".repeat(1000)]), at(on, place));
}

export function newDirectory(on: Editing, place = fresh(on)): void {
  fs.mkdirSync(at(on, place), { mode: on.chance.pick([0o755, 0o700, 0o777]) });
}

export function newPipe(on: Editing, place = fresh(on)): void {
  makeNode(at(on, place), TYPE.PIPE);
}

export function newSparse(on: Editing): void {
  const fd = fs.openSync(at(on, fresh(on)), "w");
  fs.ftruncateSync(fd, on.chance.pick([1 << 20, 300_001, 5 << 20]));
  if (on.chance.oneIn(2)) fs.writeSync(fd, `data ${on.chance.below(1e6)}`, on.chance.below(250_000));
  fs.closeSync(fd);
}

export function ofFile(on: Editing, change: (file: Buffer, size: number) => void): void {
  const file = at(on, on.file);
  const stat = fs.lstatSync(file);
  if (stat.isFile()) change(file, stat.size);
}

/** One byte, and the modification time set back: only the change time tells. */
export function quietly(on: Editing): void {
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

export function setTimes(on: Editing, name: string): void {
  const times = [0, 1, -1, 1.5, 2e9, 4e9, 1e9 + on.chance.below(1e6), 1_700_000_000.123_456];
  fs.lutimesSync(at(on, name), 1, on.chance.pick(times));
}

export function swap(on: Editing, one: string, other: string): void {
  if (one === other) return;
  const aside = at(on, "swapped aside");
  fs.renameSync(at(on, one), aside);
  fs.renameSync(at(on, other), at(on, one));
  fs.renameSync(aside, at(on, other));
}

/** Directories that do not lie in the chosen one. */
export function outside(on: Editing): string[] {
  return on.directories.filter((each) => each !== on.directory && !each.startsWith(`${on.directory}/`));
}

/** Another directory that neither lies in the chosen one nor holds it; null where there is none. */
export function apart(on: Editing): string | null {
  const other = on.chance.pick(outside(on));
  return other === "" || on.directory.startsWith(`${other}/`) ? null : other;
}

export function remove(place: Buffer): void {
  fs.rmSync(place, { recursive: true });
}

/** A POSIX access list as the kernel takes it. */
export function accessList(chance: Chance): Buffer {
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

export const CAPABILITY = Buffer.from("0100000200200000000000000000000000000000", "hex");

export function writeRules(on: Editing): void {
  const parent = on.chance.oneIn(3) ? on.chance.pick(on.directories) : "";
  const place = at(on, `${parent}${parent === "" ? "" : "/"}.cairnignore`);
  if (on.chance.oneIn(5)) return fs.rmSync(place, { recursive: true, force: true });
  const stat = fs.lstatSync(place, { throwIfNoEntry: false });
  if (stat !== undefined && !stat.isFile()) return;
  const lines = Array.from({ length: 1 + on.chance.below(3) }, () => on.chance.pick(PATTERNS));
  fs.writeFileSync(place, Buffer.from(lines.join("\n") + on.chance.pick(["\n", ""]), "latin1"));
}

export function copyDirectory(on: Editing): void {
  if (on.files.length + on.directories.length > ENTRIES / 2) return;
  const [from, to] = [at(on, on.directory), at(on, fresh(on, [""]))];
  // Paths that are not UTF-8 are no arguments.
  if ([from, to].some((each) => !/^[ -~]*$/.test(each.toString("latin1")))) return;
  execFileSync("cp", ["-a", "--", from.toString(), to.toString()], { stdio: "ignore" });
}
