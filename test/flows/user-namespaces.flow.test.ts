import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { describe, test, type TestContext } from "node:test";
import { setAttribute } from "../../src/workspace/store/testing-edits.ts";
import type { LeftOut, ListedEntry, SavePoint } from "../../src/contract/index.ts";
import { cairn, cairnOk, ROOT, type RunOptions, SCRATCH } from "../fixtures/command.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";
import { newRepository, resticEnvironment } from "../fixtures/repository.ts";
import { newUserNamespace, type UserNamespace, whyNoUserNamespace } from "../fixtures/user-namespace.ts";
import { mountOf } from "../../src/fs/linux/mounts.ts";
import { AT_FDCWD } from "../../src/fs/linux/syscalls.ts";
import { arenaOver, bindNative } from "../../src/native.ts";
import { newFolder } from "../fixtures/work.ts";

/** Saves and restores of one folder by a host and by containers that have only some of the host's ids. */

const skip = whyNoUserNamespace() ?? whyNoOrdinaryUser() ?? false;

/** Its root is the host's, as in a container of root with ids of its own for everybody else. */
const OWN_ROOT = "0 0 1\n1 100000 65536\n";
/** Ids inside and outside: nobody is a real user here, whose id the kernel also shows for strangers. */
const NOBODY = { inside: 65_534, outside: 165_533 };
const STRANGER = 1001;

function write(folder: string, owners: Record<string, number>): void {
  for (const [name, id] of Object.entries(owners)) {
    const file = path.join(folder, name);
    fs.writeFileSync(file, name);
    fs.chownSync(file, id, id);
    if (name.startsWith("setuid")) fs.chmodSync(file, 0o4755);
  }
}

function owners(folder: string): Record<string, string> {
  const names = fs.readdirSync(folder).filter((name) => !name.startsWith("."));
  return Object.fromEntries(
    names.map((name) => {
      const { uid, gid, mode } = fs.lstatSync(path.join(folder, name));
      return [name, `${uid}:${gid} ${(mode & 0o7777).toString(8)}`];
    }),
  );
}

const pointOf = (data: Record<string, unknown>): SavePoint => data["save_point"] as SavePoint;
const save = (folder: string, options: RunOptions = {}): SavePoint => pointOf(cairnOk(["save", folder], options).data);
const unknownIn = ({ labels }: SavePoint): string[] =>
  (labels as { path: string; label: string }[]).flatMap(({ label, path: at }) =>
    label === "owner-unknown" ? [at] : [],
  );
const changes = (folder: string, options: RunOptions = {}): unknown[] =>
  cairnOk(["diff", "latest"], { ...options, cwd: folder }).data["entries"] as unknown[];
const leftOut = (data: Record<string, unknown>): string[] =>
  (data["left_out"] as LeftOut[])
    .map(({ path: at, reason, aspects = [] }) => `${at} ${reason} ${aspects.join()}`)
    .toSorted();

function folders(t: TestContext): string[] {
  const found = [newFolder()];
  const disk = loopFileSystem(t, "xfs");
  if (disk !== null) {
    found.push(path.join(disk.root, "work"));
    fs.mkdirSync(found[1]!);
  }
  return found;
}

describe("user namespaces", { skip }, () => {
  test("host and container see one folder clean, and points have the host's ids", async (t) => {
    using container = await newUserNamespace(OWN_ROOT);
    for (const folder of folders(t)) {
      write(folder, { own: 0, "setuid-own": 0, inner: 100_005, nobody: NOBODY.outside });
      write(folder, { stranger: STRANGER, "setuid-stranger": STRANGER });
      const there = owners(folder);
      const point = save(folder, { prefix: container.prefix });
      assert.deepEqual(unknownIn(point), ["setuid-stranger", "stranger"]);
      const shown = cairnOk(["show", "latest"], { cwd: folder }).data["entries"] as ListedEntry[];
      assert.deepEqual(
        shown.map(({ path: at, uid, mode }) => `${at} ${uid} ${mode.toString(8)}`),
        [
          "inner 100005 644",
          `nobody ${NOBODY.outside} 644`,
          "own 0 644",
          "setuid-own 0 4755",
          "setuid-stranger 4294967295 755",
          "stranger 4294967295 644",
        ],
      );
      for (const prefix of [[], container.prefix]) {
        assert.equal(cairnOk(["status"], { cwd: folder, prefix }).data["clean"], true);
        assert.deepEqual(changes(folder, { prefix }), []);
      }
      for (const name of Object.keys(there)) fs.appendFileSync(path.join(folder, name), " edited");
      fs.chmodSync(path.join(folder, "setuid-stranger"), 0o4755);
      cairnOk(["restore", point.save_point_id], { cwd: folder });
      assert.deepEqual(owners(folder), { ...there, "setuid-stranger": `${STRANGER}:${STRANGER} 755` });
      assert.equal(fs.readFileSync(path.join(folder, "stranger"), "utf8"), "stranger");
    }
  });

  test("a save in a container keeps the owners of the point before, and a restore gives nothing away", async (t) => {
    using container = await newUserNamespace(OWN_ROOT);
    for (const folder of folders(t)) {
      write(folder, { own: 0, stranger: STRANGER, "setuid-stranger": STRANGER, "setuid-same": STRANGER });
      const there = owners(folder);
      const first = save(folder);
      fs.appendFileSync(path.join(folder, "own"), " edited");
      fs.appendFileSync(path.join(folder, "stranger"), " edited");
      fs.appendFileSync(path.join(folder, "setuid-stranger"), " edited");
      fs.chmodSync(path.join(folder, "setuid-stranger"), 0o4755);
      const second = save(folder, { prefix: container.prefix });
      assert.deepEqual(unknownIn(second), []);
      const shown = cairnOk(["show", "latest"], { cwd: folder }).data["entries"] as ListedEntry[];
      assert.deepEqual(
        shown.map(({ path: at, uid, mode }) => `${at} ${uid} ${mode.toString(8)}`),
        [`own 0 644`, `setuid-same ${STRANGER} 4755`, `setuid-stranger ${STRANGER} 755`, `stranger ${STRANGER} 644`],
      );
      const inside = cairn(["restore", first.save_point_id], { cwd: folder, prefix: container.prefix });
      assert.equal(inside.status, 10, inside.stdout + inside.stderr);
      assert.deepEqual(leftOut(inside.data), ["setuid-stranger not_permitted ", "stranger not_permitted "]);
      assert.deepEqual(owners(folder), there);
      cairnOk(["restore", first.save_point_id], { cwd: folder });
      assert.deepEqual(owners(folder), there);
      assert.equal(fs.readFileSync(path.join(folder, "setuid-stranger"), "utf8"), "setuid-stranger");
    }
  });

  test("an access list with a stranger is left alone by a container, and stays", async (t) => {
    using container = await newUserNamespace(OWN_ROOT);
    const folder = newFolder();
    write(folder, { known: 0, stranger: 0 });
    const list = (id: number): Uint8Array => {
      const value = Buffer.alloc(4 + 5 * 8, 0xff);
      value.writeUInt32LE(2, 0);
      for (const [i, [tag, bits]] of [
        [0x01, 6],
        [0x02, 4],
        [0x04, 4],
        [0x10, 4],
        [0x20, 4],
      ].entries()) {
        value.writeUInt16LE(tag!, 4 + i * 8);
        value.writeUInt16LE(bits!, 6 + i * 8);
      }
      value.writeUInt32LE(id, 4 + 8 + 4);
      return value;
    };
    const name = "system.posix_acl_access";
    const isSet = (
      [
        ["known", 100_005],
        ["stranger", STRANGER],
      ] as const
    ).every(([file, id]) => setAttribute(path.join(folder, file), name, list(id)));
    if (!isSet) return t.skip("the file system has no access lists");
    const saved = cairn(["save", folder], { prefix: container.prefix });
    assert.deepEqual(leftOut(saved.data), ["stranger unreadable xattrs"]);
    const point = pointOf(saved.data).save_point_id;
    for (const file of ["known", "stranger"]) fs.appendFileSync(path.join(folder, file), " edited");
    cairn(["restore", point], { cwd: folder });
    assert.deepEqual(fs.readFileSync(path.join(folder, "known"), "utf8"), "known");
    save(folder);
    assert.deepEqual(changes(folder), [], "the host has the lists as they were");
    const tool = cairnOk(["diff", point, "latest"], { cwd: folder }).data["entries"] as { path: string }[];
    assert.deepEqual(
      tool.map(({ path: at }) => at),
      ["stranger"],
    );
  });

  test("backups, forks and --to in a container have the host's ids", async () => {
    using container = await newUserNamespace(OWN_ROOT);
    const folder = newFolder();
    write(folder, { own: 0, inner: 100_005, stranger: STRANGER, "setuid-stranger": STRANGER });
    const { RESTIC_REPOSITORY, RESTIC_PASSWORD_FILE } = resticEnvironment(await newRepository());
    const env = { RESTIC_REPOSITORY: RESTIC_REPOSITORY!, RESTIC_PASSWORD_FILE: RESTIC_PASSWORD_FILE! };
    const prefix = container.prefix;
    const options = { cwd: folder, env, prefix };
    cairnOk(["backup", "create", folder], options);
    const parent = newFolder("copies");
    const expected = { own: "0:0 644", inner: "100005:100005 644" };
    const ways: [string, string[], RunOptions][] = [
      ["to", ["restore", "latest", "--to"], options],
      ["host-to", ["restore", "latest", "--to"], { cwd: folder }],
      ["fork", ["fork", "latest"], options],
      ["backup", ["backup", "restore", `latest:${folder}`, "--to"], options],
      ["host-backup", ["backup", "restore", `latest:${folder}`, "--to"], { cwd: folder, env }],
    ];
    for (const [name, args, how] of ways) {
      const to = path.join(parent, name);
      const done = cairn([...args, to], how);
      assert.ok(done.status === 10 || done.status === 0, `${name}: ${done.stdout}${done.stderr}`);
      const { own, inner, stranger, "setuid-stranger": setuid } = owners(to);
      assert.deepEqual({ own, inner }, expected, name);
      assert.deepEqual([stranger, setuid], ["0:0 644", "0:0 755"], name);
      if (name !== "fork")
        assert.deepEqual(
          leftOut(done.data),
          ["setuid-stranger not_permitted owner", "stranger not_permitted owner"],
          name,
        );
    }
    const over = cairn(["backup", "restore", `latest:${folder}`, "--to", folder, "--overwrite", "always"], {
      cwd: folder,
      env,
    });
    assert.ok(over.status === 10 || over.status === 0, over.stdout + over.stderr);
    assert.equal(owners(folder)["stranger"], `${STRANGER}:${STRANGER} 644`);
  });

  test("a rootless container and its user's host save one folder", async () => {
    using user = disposableUser(1000);
    using container = await newUserNamespace("0 1000 1\n1 100000 65536\n");
    const folder = path.join(user.place, "state", "work");
    fs.mkdirSync(folder);
    fs.chownSync(folder, 1000, 1000);
    write(folder, { own: 1000, "setuid-own": 1000, inner: 100_005, nobody: NOBODY.outside, hosts: 0 });
    const there = owners(folder);
    const options = user.optionsIn(folder);
    const env = { ...options.env, CAIRN_STATE_DIR: path.join(user.place, "no-daemon") };
    const inside = { ...options, prefix: container.prefix, env };
    const first = pointOf(cairnOk(["save", folder], inside).data);
    assert.deepEqual(unknownIn(first), ["hosts"]);
    for (const each of [options, inside]) assert.equal(cairnOk(["status"], each).data["clean"], true);
    fs.rmSync(path.join(folder, "setuid-own"));
    fs.rmSync(path.join(folder, "inner"));
    cairnOk(["restore", first.save_point_id], inside);
    assert.deepEqual(owners(folder), there);
    assert.deepEqual(changes(folder, options), []);
    // A user of the container other than its root.
    const nobody = {
      ...inside,
      prefix: container.as(NOBODY.inside),
      env: { ...env, XDG_STATE_HOME: newStateOf(user.place) },
    };
    const own = path.join(user.place, "nobody");
    fs.mkdirSync(own);
    fs.chownSync(own, NOBODY.outside, NOBODY.outside);
    write(own, { own: NOBODY.outside, stranger: 0 });
    const saved = pointOf(cairnOk(["save", own], nobody).data);
    assert.deepEqual(unknownIn(saved), ["own", "stranger"].slice(1));
  });

  test("a mount that gets the id of an idmapped mount keeps its own ids, also in a process that goes on", async (t) => {
    using container = await newUserNamespace(OWN_ROOT);
    const disk = loopFileSystem(t, "ext4");
    if (disk === null) return;
    const [from, at] = [path.join(disk.root, "from"), newFolder("mapped")];
    fs.mkdirSync(from);
    write(from, { file: 5 });
    const module = pathToFileURL(path.join(ROOT, "src/fs/linux/syscalls.ts")).href;
    const code = `import { AT_FDCWD, newStatBuffer, STAT, syscalls } from ${JSON.stringify(module)};
      import { arenaOver } from ${JSON.stringify(new URL("../../native.ts", module).href)};
      const [out, name] = [newStatBuffer(), arenaOver(Buffer.from(process.argv[1] + "\\0"))];
      process.stdin.on("data", () => {
        syscalls().stat(AT_FDCWD, name, 0, out);
        console.log(out.words[STAT.UID]);
      });`;
    const words = [...container.prefix, process.execPath, "--no-warnings", "--input-type=module", "-e", code];
    const child = spawn(words[0]!, [...words.slice(1), path.join(at, "file")], { stdio: ["pipe", "pipe", "inherit"] });
    t.after(() => void child.kill("SIGKILL"));
    const lines = createInterface(child.stdout);
    const ownerSeen = async (isMapped: boolean): Promise<[number, string]> => {
      if (isMapped) mountMapped(from, at, container);
      else assert.equal(spawnSync("mount", ["--bind", from, at]).status, 0);
      const { id } = mountOf(at)!;
      const told = once(lines, "line");
      child.stdin.write("?");
      const [line] = (await told) as [string];
      assert.equal(spawnSync("umount", [at]).status, 0);
      return [id, line];
    };
    const [plain, other, again] = [await ownerSeen(false), await ownerSeen(true), await ownerSeen(false)];
    assert.deepEqual([plain[1], other[1], again[1]], ["4294967295", "5", "4294967295"]);
    if (plain[0] !== other[0] || other[0] !== again[0]) t.skip("the kernel gave no mount the id again");
  });

  test("a namespace without any ids knows no owner, and restores", async () => {
    using container = await newUserNamespace("");
    const folder = newFolder();
    fs.chmodSync(SCRATCH, 0o755);
    write(folder, { own: 0, "setuid-own": 0 });
    const point = save(folder, { prefix: container.prefix });
    assert.deepEqual(unknownIn(point), ["own", "setuid-own"]);
    fs.rmSync(path.join(folder, "setuid-own"));
    const done = cairn(["restore", point.save_point_id], { cwd: folder, prefix: container.prefix });
    assert.ok(done.status === 0 || done.status === 10, done.stdout + done.stderr);
    assert.deepEqual(owners(folder), { own: "0:0 644", "setuid-own": "0:0 755" });
  });
});

/** Mounts a directory at a second place with the ids of a namespace: on the disk they are those inside. */
function mountMapped(from: string, at: string, { prefix }: UserNamespace): void {
  const call = bindNative("int64_t syscall(int64_t n, int64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)")!;
  const text = (value: string): number => arenaOver(Buffer.from(`${value}\0`)).address;
  const [OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR] = [428, 429, 442];
  const [EMPTY_PATH, CLONE, MOVE_EMPTY, IDMAP] = [0x1000, 1, 4, 0x100000n];
  const namespace = fs.openSync(`/proc/${prefix[prefix.indexOf("--target") + 1]}/ns/user`, "r");
  const tree = call(OPEN_TREE, AT_FDCWD, text(from), CLONE, 0, 0);
  const attributes = arenaOver(Buffer.from(BigUint64Array.of(IDMAP, 0n, 0n, BigInt(namespace)).buffer));
  assert.equal(call(MOUNT_SETATTR, tree, text(""), EMPTY_PATH, attributes.address, 32), 0, "mount_setattr");
  assert.equal(call(MOVE_MOUNT, tree, text(""), AT_FDCWD, text(at), MOVE_EMPTY), 0, "move_mount");
  for (const fd of [tree, namespace]) fs.closeSync(fd);
}

function newStateOf(place: string): string {
  const state = path.join(place, "state-of-nobody");
  fs.mkdirSync(state);
  fs.chownSync(state, NOBODY.outside, NOBODY.outside);
  return state;
}

function disposableUser(id: number): ReturnType<typeof installForOrdinaryUser> & Disposable {
  const user = installForOrdinaryUser(id);
  return { ...user, [Symbol.dispose]: () => user.remove() };
}
