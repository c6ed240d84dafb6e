import fs from "node:fs";
import path from "node:path";
import { AT_FDCWD, openDirectory, putName, syscalls, TYPE } from "../../fs/linux/syscalls.ts";
import { newArena } from "../../native.ts";

/** A generator of numbers in [0, 1) that a seed reproduces. */
export function randomFrom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 4294967296;
  };
}

const PATHS = newArena(16384);

/** Makes a pipe, socket or device; true if the system permits it. */
export function makeNode(at: string | Uint8Array, type: number, device: [number, number] = [0, 0]): boolean {
  putName(PATHS, 0, Buffer.from(at as string));
  return syscalls().mknod(AT_FDCWD, PATHS, 0, (type << 12) | 0o640, device[0], device[1]) === 0;
}

/** Sets an extended attribute of a path without following a link; true if the file system accepts it. */
export function setAttribute(at: string | Uint8Array, name: string | Uint8Array, value: string | Uint8Array): boolean {
  const bytes = Buffer.from(at as string);
  const slash = bytes.lastIndexOf("/");
  const parent = openDirectory(bytes.subarray(0, Math.max(slash, 1)));
  putName(PATHS, 0, bytes.subarray(slash + 1));
  const result = syscalls().lsetxattr(parent, PATHS, 0, Buffer.from(name as string), Buffer.from(value as string));
  fs.closeSync(parent);
  return result === 0;
}

/** Random changes of a folder, of every kind that a scan has to notice. */
export class RandomEdits {
  readonly #root: string;
  readonly #random: () => number;
  #counter = 0;
  /** the edits, newest last, for the message of a failed test */
  readonly log: string[] = [];

  constructor(root: string, random: () => number) {
    this.#root = root;
    this.#random = random;
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  #pick<T>(list: readonly T[]): T {
    return list[this.#below(list.length)]!;
  }

  #all(): { directories: string[]; others: string[] } {
    const directories = [this.#root];
    const others: string[] = [];
    for (let i = 0; i < directories.length; i++) {
      for (const entry of fs.readdirSync(directories[i]!, { withFileTypes: true })) {
        const at = path.join(directories[i]!, entry.name);
        if (entry.isDirectory()) directories.push(at);
        else others.push(at);
      }
    }
    return { directories, others };
  }

  #fresh(directories: readonly string[]): string {
    // Names that sort before, between and after the existing names.
    return path.join(this.#pick(directories), `${this.#pick(["a", "m", "z", "A", "é", "~"])}${this.#counter++}`);
  }

  #bytes(): Buffer {
    const length = this.#pick([0, 1, 10, 100, 4096, 5000, 70_000, 600_000]);
    return Buffer.alloc(length, `${this.#below(1e9)}`);
  }

  /** Makes one random change, and adds it to the log. */
  edit(): void {
    const { directories, others } = this.#all();
    const kinds = ["create", "create", "mkdir", "symlink", "pipe"];
    if (others.length > 0) {
      kinds.push("modify", "modify", "append", "quiet", "truncate", "remove", "rename", "replace", "chmod", "touch");
      kinds.push("link", "swap", "over", "attribute", "owner");
    }
    if (directories.length > 1)
      kinds.push("rmdir", "rename-dir", "chmod-dir", "touch-dir", "swap-dirs", "dir-attribute");
    const kind = this.#pick(kinds);
    const file = others.length > 0 ? this.#pick(others) : "";
    const directory = directories.length > 1 ? this.#pick(directories.slice(1)) : "";
    this.log.push(`${kind} ${path.relative(this.#root, file)} | ${path.relative(this.#root, directory)}`);
    if (kind.includes("dir") && kind !== "mkdir") this.#editDirectory(kind, directory, directories);
    else if (["create", "mkdir", "symlink", "pipe"].includes(kind)) this.#create(kind, this.#fresh(directories));
    else this.#editFile(kind, file, { directories, others });
  }

  #create(kind: string, at: string): void {
    if (kind === "create") fs.writeFileSync(at, this.#bytes());
    else if (kind === "mkdir") fs.mkdirSync(at);
    else if (kind === "symlink") fs.symlinkSync(this.#pick(["nowhere", "/etc/passwd", "..", "a/b/c"]), at);
    else makeNode(at, TYPE.PIPE);
  }

  #editDirectory(kind: string, directory: string, directories: readonly string[]): void {
    const outside = directories.filter((other) => other !== directory && !other.startsWith(`${directory}/`));
    if (kind === "rmdir") fs.rmSync(directory, { recursive: true });
    else if (kind === "rename-dir") fs.renameSync(directory, this.#fresh(outside));
    else if (kind === "chmod-dir") fs.chmodSync(directory, this.#pick([0o755, 0o700, 0o1777, 0o2755]));
    else if (kind === "touch-dir") fs.utimesSync(directory, 1, this.#below(2e9));
    else if (kind === "dir-attribute") setAttribute(directory, "user.note", `${this.#below(100)}`);
    else {
      const other = this.#pick(outside);
      if (other === this.#root || directory.startsWith(`${other}/`)) return;
      swap(directory, other);
    }
  }

  #editFile(kind: string, file: string, all: { directories: string[]; others: string[] }): void {
    const stat = fs.lstatSync(file);
    if (["modify", "append", "quiet", "truncate"].includes(kind)) {
      if (stat.isFile()) this.#writeFile(kind, file, stat);
    } else if (kind === "remove") fs.unlinkSync(file);
    else if (kind === "rename") fs.renameSync(file, this.#fresh(all.directories));
    else if (kind === "replace") {
      fs.unlinkSync(file);
      this.#create(this.#pick(["create", "mkdir", "symlink", "pipe"]), file);
    } else if (kind === "chmod") {
      if (!stat.isSymbolicLink()) fs.chmodSync(file, this.#pick([0o644, 0o600, 0o4755, 0o444, 0]));
    } else if (kind === "touch") fs.lutimesSync(file, 1, this.#below(2e9));
    else if (kind === "link") fs.linkSync(file, this.#fresh(all.directories));
    else if (kind === "swap") {
      const other = this.#pick(all.others);
      if (other !== file) swap(file, other);
    } else if (kind === "over") {
      const other = this.#pick(all.others);
      if (other !== file) fs.renameSync(other, file);
    } else if (kind === "owner") {
      if (process.geteuid?.() === 0) fs.lchownSync(file, this.#below(3), this.#below(3));
    } else if (stat.isFile()) setAttribute(file, this.#pick(["user.a", "user.b"]), `${this.#below(100)}`);
  }

  #writeFile(kind: string, file: string, stat: fs.Stats): void {
    if (kind === "modify") fs.writeFileSync(file, this.#bytes());
    else if (kind === "append") fs.appendFileSync(file, this.#bytes());
    else if (kind === "truncate") fs.truncateSync(file, this.#below(stat.size + 10_000));
    else {
      // Keep size and modification time: only the change time tells that the file changed.
      fs.writeFileSync(file, Buffer.alloc(stat.size, `${this.#below(1e9)}`));
      fs.utimesSync(file, stat.atimeMs / 1000, stat.mtimeMs / 1000);
    }
  }
}

function swap(a: string, b: string): void {
  fs.renameSync(a, `${a}.swap`);
  fs.renameSync(b, a);
  fs.renameSync(`${a}.swap`, b);
}
