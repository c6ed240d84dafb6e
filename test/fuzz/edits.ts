import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { makeNode, setAttribute } from "../../src/workspace/store/testing-edits.ts";
import { TYPE } from "../../src/fs/linux/syscalls.ts";
import {
  accessList,
  apart,
  at,
  CAPABILITY,
  copyDirectory,
  type Editing,
  type EditSet,
  ENTRIES,
  fresh,
  newBytes,
  newDirectory,
  newFile,
  newLink,
  newName,
  newPipe,
  newSparse,
  ofFile,
  OTHERS,
  outside,
  quietly,
  remove,
  setTimes,
  swap,
  writeRules,
} from "./editing.ts";
import type { Chance } from "./walk.ts";

/**
 * Random changes of a folder with everything that a name, a type and an attribute can be. Names are sorted before one is
 * chosen: file systems list them by hashes of their own.
 */

interface Edit {
  name: string;
  weight: number;
  set: EditSet;
  /** What there must be one of. */
  takes: "nothing" | "file" | "directory";
  run: (on: Editing) => void;
}

/** Errors of an edit that the folder as it is does not allow; then it is none. */
const NOT_NOW = new Set(
  "EINVAL ENOTEMPTY EEXIST EISDIR ENOTDIR EMLINK EPERM ENOENT ENAMETOOLONG ENXIO EOPNOTSUPP ELOOP".split(" "),
);

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
    name: "another's file",
    weight: 1,
    set: "rights",
    takes: "file",
    run: (on) => fs.lchownSync(at(on, on.file), on.chance.pick(OTHERS), on.chance.pick(OTHERS)),
  },
  {
    name: "another's directory",
    weight: 1,
    set: "rights",
    takes: "directory",
    run: (on) => fs.chownSync(at(on, on.directory), on.chance.pick(OTHERS), on.chance.pick(OTHERS)),
  },
  {
    name: "closed directory",
    weight: 2,
    set: "rights",
    takes: "directory",
    run: (on) => fs.chmodSync(at(on, on.directory), on.chance.pick([0o755, 0o700, 0o300, 0o500, 0o100, 0o400])),
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
