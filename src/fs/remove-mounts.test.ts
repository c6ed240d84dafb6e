import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { asOrdinaryUser, loopFileSystem, ORDINARY_USER } from "../../test/fixtures/loop-file-system.ts";
import { removeSnapshot, removeTree } from "../clones/remove-held.ts";
import { makeSubvolume } from "./linux/btrfs.ts";
import { openDirectory, type Syscalls, syscalls } from "./linux/syscalls.ts";
import { removal, removeAll, removeEntry } from "./remove-all.ts";

const REMOVE_ALL = new URL("remove-all.ts", import.meta.url).href;
const NATIVE = new URL("../native.ts", import.meta.url).href;

function whyNoMounts(): string | false {
  return process.geteuid?.() === 0 ? false : "mounting needs root";
}

function run(program: string, ...args: string[]): void {
  const done = spawnSync(program, args, { encoding: "utf8" });
  if (done.status !== 0) throw new Error(`${program}: ${done.error?.message ?? done.stderr}`);
}

interface Place {
  root: string;
  tree: string;
  /** a mount point in the tree */
  point: string;
  precious: string;
}

/** `tree` with a file and an empty mount point, and `precious` with a photo beside it. */
function place(t: TestContext, root = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "cairn-mounts-")))): Place {
  fs.chmodSync(root, 0o755);
  const made = { root, tree: `${root}/tree`, point: `${root}/tree/a/mnt`, precious: `${root}/precious` };
  fs.mkdirSync(made.point, { recursive: true });
  fs.mkdirSync(made.precious);
  fs.writeFileSync(`${made.tree}/a/file`, "file");
  fs.writeFileSync(`${made.precious}/photo`, "photo");
  t.after(() => {
    for (let tries = 0; tries < 3 && isMounted(root); tries++) unmountBelow(root);
    fs.rmSync(root, { recursive: true, force: true });
  });
  return made;
}

function mountsIn(root: string): string[] {
  const lines = fs.readFileSync("/proc/self/mountinfo", "latin1").split("\n");
  return lines.map((line) => line.split(" ")[4] ?? "").filter((point) => point.startsWith(`${root}/`));
}

const isMounted = (root: string): boolean => mountsIn(root).length > 0;

function unmountBelow(root: string): void {
  const octal = (sign: string): string => `\\${sign.charCodeAt(0).toString(8).padStart(3, "0")}`;
  for (const point of mountsIn(root).toReversed())
    spawnSync("sh", ["-c", `umount -l "$(printf '${point.replaceAll(/[^\x20-\x7e]/g, octal)}')"`]);
}

function assertAsBefore({ tree, precious }: Place): void {
  assert.equal(fs.readFileSync(`${tree}/a/file`, "utf8"), "file");
  assert.equal(fs.readFileSync(`${precious}/photo`, "utf8"), "photo");
}

/** Removals that must refuse a mount inside. */
const WAYS: Record<string, (tree: string) => unknown> = {
  removeAll,
  removeTree: (tree) => removeTree(Buffer.from(tree)),
  removeEntry: async (tree) => {
    const parent = openDirectory(path.dirname(tree));
    try {
      await removeEntry(parent, Buffer.from(path.basename(tree)));
    } finally {
      fs.closeSync(parent);
    }
  },
};

const MOUNTS: Record<string, (made: Place) => string> = {
  "a bind mount": ({ precious, point }) => (run("mount", "--bind", precious, point), point),
  "a bind mount of a file": ({ precious, tree }) => {
    run("mount", "--bind", `${precious}/photo`, `${tree}/a/file`);
    return `${tree}/a/file`;
  },
  "a bind mount below a closed directory": ({ precious, point }) => {
    run("mount", "--bind", precious, point);
    fs.chmodSync(path.dirname(point), 0);
    return point;
  },
  "a tmpfs": ({ point }) => {
    run("mount", "-t", "tmpfs", "tmpfs", point);
    fs.writeFileSync(`${point}/photo`, "photo");
    return point;
  },
  "a FUSE (bindfs)": ({ precious, point }) => (run("bindfs", precious, point), point),
  "a mount made through another path of the same file system": ({ root, tree, precious }) => {
    fs.mkdirSync(`${root}/other`);
    run("mount", "--bind", "--make-private", tree, `${root}/other`);
    run("mount", "--bind", precious, `${root}/other/a/mnt`);
    return `${root}/other/a/mnt`;
  },
  "a mount point whose name is not UTF-8": ({ tree, precious }) => {
    const point = Buffer.concat([Buffer.from(`${tree}/`), Buffer.from([0x61, 0xff, 0x20, 0x62])]);
    fs.mkdirSync(point);
    fs.symlinkSync(point, `${precious}/way`);
    run("mount", "--bind", precious, `${precious}/way`);
    fs.unlinkSync(`${precious}/way`);
    return "a\\xff b";
  },
};

for (const [kind, mount] of Object.entries(MOUNTS))
  for (const [way, remove] of Object.entries(WAYS))
    test(`${way} names ${kind} inside the tree and removes nothing`, { skip: whyNoMounts() }, async (t) => {
      if (kind.includes("FUSE") && spawnSync("bindfs", ["--version"]).error !== undefined) return t.skip("no bindfs");
      const made = place(t);
      const named = mount(made);
      await assert.rejects(
        async () => remove(made.tree),
        (error: Error & { code: string; hint: string }) => {
          assert.equal(error.code, "refused");
          assert.ok(error.message.includes(named), error.message);
          assert.match(error.hint, /umount/);
          return true;
        },
      );
      if (kind.includes("closed")) fs.chmodSync(`${made.tree}/a`, 0o755);
      unmountBelow(made.root);
      assertAsBefore(made);
      await remove(made.tree);
      assert.deepEqual(
        fs.readdirSync(made.root).filter((name) => name !== "other"),
        ["precious"],
      );
    });

test("removeAll refuses a tree that is a mount point itself", { skip: whyNoMounts() }, (t) => {
  const made = place(t);
  run("mount", "--bind", made.precious, made.point);
  assert.throws(() => removeAll(made.point), { code: "refused" });
  assertAsBefore(made);
});

test("removeAll of a link to a mounted folder removes only the link", { skip: whyNoMounts() }, (t) => {
  const made = place(t);
  run("mount", "--bind", made.precious, made.point);
  fs.symlinkSync(made.point, `${made.root}/link`);
  removeAll(`${made.root}/link`);
  assertAsBefore(made);
});

/** Mounts `precious` once the removal has begun, at each step of it. */
function mountMeanwhile(t: TestContext): void {
  for (let step = 0; step < 8; step++) {
    const made = place(t);
    for (const name of ["b", "b/c", "b/c/d"]) {
      fs.mkdirSync(`${made.tree}/${name}`);
      fs.writeFileSync(`${made.tree}/${name}/file`, "");
    }
    const parent = openDirectory(made.root);
    const points = ["a", "b", "b/c", "b/c/d", "a/mnt"].map((name) => `${made.tree}/${name}`);
    let failed: unknown = null;
    try {
      let at = 0;
      for (const pause of removal(parent, Buffer.from("tree"))) {
        void pause;
        if (at++ !== step) continue;
        for (const point of points) if (fs.existsSync(point)) run("mount", "--bind", made.precious, point);
      }
    } catch (error) {
      failed = error;
    } finally {
      fs.closeSync(parent);
    }
    if (isMounted(made.root)) assert.equal((failed as { code?: string } | null)?.code, "refused", String(failed));
    assert.equal(fs.readFileSync(`${made.precious}/photo`, "utf8"), "photo");
  }
}

test("removal empties no mount that appears meanwhile", { skip: whyNoMounts() }, (t) => {
  mountMeanwhile(t);
});

test("removal empties no mount that appears meanwhile, without openat2", { skip: whyNoMounts() }, (t) => {
  const sys = syscalls() as { openInside: Syscalls["openInside"] };
  const { openInside } = sys;
  t.after(() => (sys.openInside = openInside));
  sys.openInside = null;
  mountMeanwhile(t);
});

/** Runs in a child: a seccomp filter refuses openat2 with EPERM, as in containers of old runtimes. */
const FORBID_OPENAT2 = `
  const prctl = native.bindNative("int prctl(int o, uint64_t a, uint64_t b, uint64_t c, uint64_t d)");
  const filter = native.newArena(32), program = native.newArena(16);
  const view = new DataView(filter.bytes.buffer, filter.bytes.byteOffset);
  [[0x20, 0, 0, 0], [0x15, 0, 1, 437], [0x06, 0, 0, 0x00050001], [0x06, 0, 0, 0x7fff0000]].forEach(([code, yes, no, k], i) => {
    view.setUint16(i * 8, code, true); view.setUint8(i * 8 + 2, yes); view.setUint8(i * 8 + 3, no); view.setUint32(i * 8 + 4, k, true);
  });
  const head = new DataView(program.bytes.buffer, program.bytes.byteOffset);
  head.setUint16(0, 4, true); head.setBigUint64(8, BigInt(filter.address), true);
  if (prctl(38, 1, 0, 0, 0) !== 0 || prctl(22, 2, program.address, 0, 0) !== 0) throw new Error("no seccomp");`;

/** Removes a tree in a child process. Returns the error's code or "removed", and "true" if the child had no openat2. */
function removedByChild(tree: string, before: string, ...wrapper: string[]): string {
  const script = `const native = await import(${JSON.stringify(NATIVE)}); ${before}
    const { removeAll } = await import(${JSON.stringify(REMOVE_ALL)});
    const sys = (await import(${JSON.stringify(new URL("linux/syscalls.ts", import.meta.url).href)})).syscalls();
    try { removeAll(${JSON.stringify(tree)}); console.log("removed", sys.openInside === null) } catch (error) { console.log(error.code, sys.openInside === null) }`;
  const [program, ...args] = [...wrapper, process.execPath, "--input-type=module", "-e", script];
  const done = spawnSync(program!, args, { encoding: "utf8" });
  if (done.status !== 0) throw new Error(done.stderr);
  return done.stdout.trim();
}

test("removeAll refuses a mount inside if a seccomp filter forbids openat2", { skip: whyNoMounts() }, (t) => {
  const made = place(t);
  run("mount", "--bind", made.precious, made.point);
  assert.equal(removedByChild(made.tree, FORBID_OPENAT2), "refused true");
  assertAsBefore(made);
  unmountBelow(made.root);
  assert.equal(removedByChild(made.tree, FORBID_OPENAT2), "removed true");
});

test("removeAll in a user and mount namespace refuses a mount of the namespace", { skip: whyNoMounts() }, (t) => {
  const made = place(t);
  const wrapper = ["unshare", "-Urm", "sh", "-c", `mount --bind ${made.precious} ${made.point} && exec "$@"`, "sh"];
  assert.equal(removedByChild(made.tree, "", ...wrapper), "refused false");
  assertAsBefore(made);
});

test("removeAll removes a mount point of another namespace and nothing in the mount", { skip: whyNoMounts() }, (t) => {
  const made = place(t);
  run("mount", "--bind", made.precious, made.point);
  assert.equal(
    removedByChild(made.tree, "", "unshare", "-m", "sh", "-c", `umount ${made.point} && exec "$@"`, "sh"),
    "removed false",
  );
  assert.equal(fs.readFileSync(`${made.precious}/photo`, "utf8"), "photo");
});

test("removeAll without /proc stops at a mount", { skip: whyNoMounts() }, (t) => {
  const made = place(t);
  run("mount", "--bind", made.precious, made.point);
  const hidden = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs tmpfs /proc && exec "$@"', "sh"];
  assert.match(removedByChild(made.tree, "", ...hidden), /^(?:EXDEV|EBUSY) false$/);
  assert.equal(fs.readFileSync(`${made.precious}/photo`, "utf8"), "photo");
});

test("an ordinary user's removal of an own tree refuses root's mount inside", { skip: whyNoMounts() }, (t) => {
  const made = place(t);
  run("chown", "-R", `${ORDINARY_USER}`, made.root);
  run("mount", "--bind", made.precious, made.point);
  const code = asOrdinaryUser(
    { remove: REMOVE_ALL },
    `try { remove.removeAll(${JSON.stringify(made.tree)}); return "removed"; } catch (error) { return error.code; }`,
  );
  assert.equal(code, "refused");
  assertAsBefore(made);
});

for (const kind of ["btrfs", "xfs", "ext4"] as const)
  test(`removals refuse a mounted ${kind}, and work on ${kind} itself`, async (t) => {
    const volume = loopFileSystem(t, kind);
    if (volume === null || volume === undefined) return;
    const made = place(t);
    fs.writeFileSync(`${volume.root}/photo`, "photo");
    run("mount", "--bind", volume.root, made.point);
    for (const remove of Object.values(WAYS)) await assert.rejects(async () => remove(made.tree), { code: "refused" });
    assert.equal(fs.readFileSync(`${volume.root}/photo`, "utf8"), "photo");
    unmountBelow(made.root);
    const inside = place(t, fs.mkdtempSync(`${volume.root}/place-`));
    run("mount", "--bind", inside.precious, inside.point);
    for (const remove of Object.values(WAYS))
      await assert.rejects(async () => remove(inside.tree), { code: "refused" });
    unmountBelow(inside.root);
    assertAsBefore(inside);
    removeAll(inside.tree);
    assert.deepEqual(fs.readdirSync(inside.root), ["precious"]);
  });

test("removals enter nested subvolumes but no mount in them, with and without openat2", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null || volume === undefined) return;
  const sys = syscalls() as { openInside: Syscalls["openInside"] };
  const { openInside } = sys;
  t.after(() => (sys.openInside = openInside));
  const ways = { ...WAYS, removeSnapshot: (tree: string) => removeSnapshot(Buffer.from(tree)) };
  for (const open of [openInside, null])
    for (const [way, remove] of Object.entries(ways)) {
      sys.openInside = open;
      const made = place(t, fs.mkdtempSync(`${volume.root}/place-`));
      const tree = `${made.root}/subvolumes`;
      if (way === "removeSnapshot") await makeSubvolume(Buffer.from(tree));
      else fs.mkdirSync(tree);
      await makeSubvolume(Buffer.from(`${tree}/one`));
      fs.mkdirSync(`${tree}/one/between`);
      await makeSubvolume(Buffer.from(`${tree}/one/between/two`));
      fs.mkdirSync(`${tree}/one/between/two/mnt`);
      fs.writeFileSync(`${tree}/one/between/two/file`, "file");
      run("mount", "--bind", made.precious, `${tree}/one/between/two/mnt`);
      await assert.rejects(async () => remove(tree), { code: "refused" }, way);
      assert.equal(fs.readFileSync(`${tree}/one/between/two/file`, "utf8"), "file");
      unmountBelow(made.root);
      assertAsBefore(made);
      await remove(tree);
      assert.equal(fs.existsSync(tree), false, way);
    }
});

test("removeAll works on an overlay, whose entries have several device numbers", { skip: whyNoMounts() }, (t) => {
  const made = place(t);
  for (const name of ["lower/tree/deep/er", "upper", "work", "merged"])
    fs.mkdirSync(`${made.root}/${name}`, { recursive: true });
  fs.writeFileSync(`${made.root}/lower/tree/deep/er/file`, "file");
  const layers = ["lower", "upper", "work"].map((name) => `${name}dir=${made.root}/${name}`).join(",");
  const mounted = spawnSync("mount", ["-t", "overlay", "overlay", "-o", layers, `${made.root}/merged`]);
  if (mounted.status !== 0) return t.skip("no overlay here");
  fs.writeFileSync(`${made.root}/merged/tree/new`, "new");
  removeAll(`${made.root}/merged/tree`);
  assert.deepEqual(fs.readdirSync(`${made.root}/merged`), []);
  assert.equal(fs.readFileSync(`${made.root}/lower/tree/deep/er/file`, "utf8"), "file");
});
