import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { makeNode } from "../../src/workspace/store/testing-edits.ts";
import { TYPE } from "../../src/fs/linux/syscalls.ts";
import { type OpenedRepository } from "../../src/keep/opened-repository.ts";
import { withAnotherPiece } from "../../src/backup/testing-far.ts";
import { buildCommand, cairn, cairnOk, type Outcome, startCairn } from "../fixtures/command.ts";
import { exfat } from "../fixtures/exfat.ts";
import {
  newRepository,
  noRestic,
  passwordOf,
  repositoryPlace,
  restic,
  type TestRepository,
} from "../fixtures/repository.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { cairnLibrary, newFolder, pauseFile } from "../fixtures/work.ts";

/** What is restored without a digest of the whole to compare with is compared entry by entry. */

interface Saved {
  folder: string;
  place: TestRepository;
}

async function saved(): Promise<Saved> {
  const folder = newFolder("read-again");
  makeFirst(folder);
  // Of several blobs.
  fs.writeFileSync(path.join(folder, "chunked"), randomBytes(3_000_000));
  const place = await newRepository();
  cairnOk(["backup", "create", folder, ...place.options]);
  return { folder, place };
}

function restoring({ place }: { place: TestRepository }, to: string, ...args: string[]): string[] {
  return ["backup", "restore", "latest", "--to", to, ...args, ...place.options];
}

/** A restore during which somebody changes what was written, before it is read again. */
async function changed(args: readonly string[], to: string, change: (staging: string) => void): Promise<Outcome> {
  const pause = pauseFile();
  const running = startCairn(args, { failpoint: `restore-backup.written@${pause}` });
  await running.paused;
  const [staging] = fs.readdirSync(path.dirname(to)).filter((name) => name.includes("cairn-partial"));
  change(path.join(path.dirname(to), staging!));
  fs.rmSync(pause);
  return running.ended;
}

const CHANGES: Record<string, (staging: string) => void> = {
  "content differs": (at) => fs.writeFileSync(path.join(at, "same/kept.txt"), "never chanqes\n"),
  "a byte of a large file differs": (at) => {
    const fd = fs.openSync(path.join(at, "chunked"), "r+");
    fs.writeSync(fd, "other", 2_000_000);
    fs.closeSync(fd);
  },
  "a link's target differs": (at) => {
    fs.rmSync(path.join(at, "link"));
    fs.symlinkSync("/etc/passwd", path.join(at, "link"));
  },
  "a file was added": (at) => fs.writeFileSync(path.join(at, "same/more"), ""),
  "a file is missing": (at) => fs.rmSync(path.join(at, "same/kept.txt")),
};

test("backup restore of chosen paths reads the files again only with --prove disk", async () => {
  const at = await saved();
  const to = newFolder("parts");
  const args = restoring(at, to, "same", "chunked", "link");
  assert.deepEqual(
    [cairnOk(args).data["read_again"], cairnOk(restoring(at, newFolder(), "same")).data["proof"]],
    [false, null],
  );
  const { data } = cairnOk(restoring(at, newFolder(), "same", "chunked", "link", "--prove", "disk"));
  assert.deepEqual([data["read_again"], data["proof"]], [true, null]);
});

for (const [what, change] of Object.entries(CHANGES))
  test(`backup restore leaves no folder if ${what} after the write`, async () => {
    const at = await saved();
    const parts = path.join(newFolder("in"), "parts");
    const partly = await changed(restoring(at, parts, "same", "chunked", "link", "--prove", "disk"), parts, change);
    assert.deepEqual([partly.status, fs.existsSync(parts)], [6, false], partly.stdout + partly.stderr);
    // The digest of the whole says nothing of parts.
    assert.match(partly.error!.message, /reads back differently at [^;]*$/);
    // Most of the smallest pack that has content, so that its middle is hit, is one file.
    fs.writeFileSync(path.join(at.folder, "lost"), randomBytes(100_000));
    cairnOk(["backup", "create", at.folder, ...at.place.options]);
    damageLost(at);
    const rest = path.join(newFolder("in"), "rest");
    const damaged = await changed(restoring(at, rest), rest, change);
    assert.deepEqual([damaged.status, fs.existsSync(rest)], [6, false], damaged.stdout + damaged.stderr);
  });

test("backup restore proves a snapshot from memory or from disk, and leaves no folder if content differs", async () => {
  const at = await saved();
  for (const from of ["memory", "disk"]) {
    const done = cairnOk(restoring(at, newFolder(), "--prove", from));
    const { receipt } = done.data["proof"] as { receipt: string };
    const signed = cairnOk(["receipt", "verify", receipt]).data["receipt"] as { read_from: string };
    assert.deepEqual([done.data["read_from"], signed.read_from], [from, from]);
    const shown = spawnSync(process.execPath, [buildCommand(), "receipt", "verify", receipt], { encoding: "utf8" });
    assert.equal(shown.stdout.includes("from memory"), from === "memory", shown.stdout + shown.stderr);
    const to = path.join(newFolder("in"), "back");
    const other = await changed(restoring(at, to, "--prove", from), to, CHANGES["content differs"]!);
    assert.deepEqual([other.status, fs.existsSync(to)], [6, false], other.stdout + other.stderr);
  }
  assert.equal(cairnOk(restoring(at, newFolder())).data["read_from"], "disk");
  assert.equal(cairnOk(restoring(at, newFolder(), "--prove", "no")).data["read_from"], null);
  const parts = cairnOk(restoring(at, newFolder(), "same", "--prove", "memory"));
  assert.deepEqual([parts.data["read_again"], parts.data["proof"]], [true, null]);
  for (const args of [["--prove", "tape"]]) assert.equal(cairn(restoring(at, newFolder(), ...args)).status, 2);
});

const CHOSEN: Record<string, readonly string[]> = {
  "a whole snapshot": [],
  parts: ["same", "link", "--prove", "disk"],
};

for (const [what, args] of Object.entries(CHOSEN))
  test(`backup restore of ${what} lists entries whose mode the file system did not keep`, async () => {
    const at = await saved();
    const to = path.join(newFolder("in"), "back");
    const moded = await changed(restoring(at, to, ...args), to, (staging) => {
      fs.chmodSync(path.join(staging, "same/updated.txt"), 0o600);
      fs.chmodSync(path.join(staging, "same"), 0o700);
    });
    const left = moded.data["left_out"] as { path: string; reason: string; aspects: string[] }[];
    assert.deepEqual(
      left.map(({ path: where, reason, aspects }) => [where, reason, aspects]),
      [
        ["same", "unsupported", ["mode"]],
        ["same/updated.txt", "unsupported", ["mode"]],
      ],
    );
    const { read_again: again, proof } = moded.data;
    assert.deepEqual([moded.status, again, proof], [10, true, null], moded.stdout + moded.stderr);
    assert.equal(fs.readFileSync(path.join(to, "same/kept.txt"), "utf8"), "never changes\n");
    const other = path.join(newFolder("in"), "other");
    const both = await changed(restoring(at, other, ...args), other, (staging) => {
      fs.chmodSync(path.join(staging, "same/updated.txt"), 0o600);
      fs.writeFileSync(path.join(staging, "same/kept.txt"), "never chanqes\n");
    });
    assert.deepEqual([both.status, fs.existsSync(other)], [6, false], both.stdout + both.stderr);
    assert.match(both.error!.message, /differently at .*kept\.txt/);
  });

for (const [what, args] of Object.entries({ ...CHOSEN, parts: ["other", "link", "--prove", "disk"] }))
  test(`backup restore of ${what} lists files whose hard links the file system did not keep`, async () => {
    const at = await saved();
    fs.writeFileSync(path.join(at.folder, "other/single"), "several names\n");
    fs.linkSync(path.join(at.folder, "other/linked-1"), path.join(at.folder, "other/linked-0"));
    fs.writeFileSync(path.join(at.folder, "lost"), randomBytes(100_000));
    cairnOk(["backup", "create", at.folder, ...at.place.options]);
    // Else the digest of the whole tells that all of the state is there.
    if (args.length === 0) damageLost(at);
    const to = path.join(newFolder("in"), "back");
    const done = await changed(restoring(at, to, ...args), to, (staging) => {
      const own = (name: string): string => path.join(staging, "other", name);
      const copied = fs.readFileSync(own("linked-2"));
      const { mode, mtime } = fs.statSync(own("linked-2"));
      for (const name of ["linked-2", "single"]) fs.rmSync(own(name));
      fs.writeFileSync(own("linked-2"), copied, { mode });
      fs.utimesSync(own("linked-2"), mtime, mtime);
      fs.linkSync(own("linked-0"), own("single"));
    });
    const left = done.data["left_out"] as { path: string; reason: string; aspects?: string[] }[];
    assert.deepEqual(
      left
        .filter(({ reason }) => reason !== "damaged")
        .map(({ path: where, reason, aspects }) => [where, reason, aspects]),
      [
        ["other/linked-2", "unsupported", ["links"]],
        ["other/single", "unsupported", ["links"]],
      ],
      done.stdout,
    );
    assert.deepEqual([done.status, done.data["read_again"], fs.existsSync(to)], [10, true, true], done.stdout);
  });

test(
  "backup restore leaves no folder if a device has another number than the saved one",
  { skip: process.geteuid?.() !== 0 && "needs root" },
  async () => {
    const folder = newFolder("device");
    fs.mkdirSync(path.join(folder, "dev"));
    for (const [name, type, minor] of [
      ["null", TYPE.CHARDEV, 3],
      ["disk", TYPE.BLOCKDEV, 300],
    ] as const)
      makeNode(path.join(folder, "dev", name), type, [7, minor]);
    const place = await newRepository();
    cairnOk(["backup", "create", folder, ...place.options]);
    assert.equal(cairnOk(restoring({ place }, newFolder(), "dev", "--prove", "disk")).data["read_again"], true);
    for (const [name, type, minor] of [
      ["null", TYPE.CHARDEV, 4],
      ["disk", TYPE.BLOCKDEV, 44],
    ] as const) {
      const to = path.join(newFolder("in"), "back");
      const done = await changed(restoring({ place }, to, "dev", "--prove", "disk"), to, (staging) => {
        fs.rmSync(path.join(staging, "dev", name));
        makeNode(path.join(staging, "dev", name), type, [7, minor]);
      });
      assert.deepEqual([done.status, fs.existsSync(to)], [6, false], done.stdout);
      assert.match(done.error!.message, new RegExp(`differently at .*dev/${name}`));
    }
  },
);

/** What a person is told. */
function inWords(args: readonly string[]): string {
  return spawnSync(process.execPath, [buildCommand(), ...args], { encoding: "utf8" }).stdout;
}

const noBindfs =
  spawnSync("bindfs", ["--version"]).error === undefined && process.getuid?.() === 0
    ? false
    : "bindfs is not installed, or this is not root";

test("backup restore lists the modes that a mount does not keep", { skip: noBindfs }, async (t) => {
  const at = await saved();
  fs.chmodSync(path.join(at.folder, "moded/mode"), 0o640);
  cairnOk(["backup", "create", at.folder, ...at.place.options]);
  const [base, root] = [newFolder("base"), newFolder("mount")];
  const mounted = spawnSync("bindfs", ["--chmod-ignore", base, root], { encoding: "utf8" });
  if (mounted.status !== 0) return t.skip(`bindfs: ${mounted.stderr}`);
  t.after(() => spawnSync("umount", [root]));
  const { status, data } = cairn(restoring(at, path.join(root, "back")));
  const left = data["left_out"] as { path: string; aspects: string[] }[];
  assert.ok(left.some((each) => each.path === "moded/mode" && each.aspects.join() === "mode"));
  assert.deepEqual([status, data["read_again"], data["proof"]], [10, true, null]);
});

test(
  "backup restore onto exFAT restores all that exFAT can hold and lists the rest",
  { skip: process.getuid?.() !== 0 && "this is not root" },
  async (t) => {
    const at = await saved();
    fs.rmSync(path.join(at.folder, "pipe"));
    fs.rmSync(path.join(at.folder, 'odd\nname "quoted" -rf ü'));
    for (const name of ["NAME", "name"]) fs.writeFileSync(path.join(at.folder, name), name);
    fs.mkdirSync(Buffer.concat([Buffer.from(`${at.folder}/dir-`), Buffer.of(0xff)]));
    cairnOk(["backup", "create", at.folder, ...at.place.options]);
    const root = exfat(t);
    if (root === null) return;
    const to = path.join(root, "back");
    const done = cairn(restoring(at, to));
    const left = done.data["left_out"] as { path: string; path_b64?: string; aspects: string[] }[];
    const lacking = (aspect: string): string[] =>
      left.filter(({ aspects }) => aspects.includes(aspect)).map(({ path: where }) => where.slice(0, 14));
    assert.deepEqual(lacking("links"), ["other/linked-2"], done.stdout + done.stderr);
    const notMade = lacking("type").toSorted();
    assert.equal(notMade.length, 3);
    assert.deepEqual([notMade[0]!.slice(0, 4), notMade[1]], ["dir-", "link"]);
    assert.match(notMade[2]!, /^name$/i);
    assert.deepEqual([done.status, done.data["read_again"], done.data["proof"]], [10, true, null]);
    assert.equal(fs.readFileSync(path.join(to, "other/linked-2"), "utf8"), "several names\n");
  },
);

test("backup restore says that every entry is equal only if it compared the entries", { skip: noRestic }, async () => {
  const at = await saved();
  const said = (...args: string[]): string => inWords(restoring(at, newFolder("to"), ...args));
  assert.match(said("same"), /were not read again; `cairn backup restore --prove disk` does that/);
  assert.match(said("same", "--prove", "disk"), /read again: every entry is equal to the snapshot$/m);
  const place = repositoryPlace("untold");
  restic(place, "init");
  // Of more than restic's largest piece.
  fs.writeFileSync(path.join(at.folder, "chunked"), randomBytes(9 << 20));
  restic(place, "backup", at.folder);
  const told = cairnOk(restoring({ place }, newFolder("to")));
  assert.deepEqual([told.data["read_again"], told.data["untold_files"]], [true, 0]);
  assert.match(inWords(restoring({ place }, newFolder("to"))), /read again: every entry is equal to the snapshot$/m);
});

test("backup restore --in-place --prove disk reads the chosen paths again and lists differences", async () => {
  const at = await saved();
  const inPlace = (...args: string[]): string[] => [
    "backup",
    "restore",
    "latest",
    "--in-place",
    ...args,
    ...at.place.options,
  ];
  const lose = (): void => {
    fs.rmSync(path.join(at.folder, "same/kept.txt"));
    fs.writeFileSync(path.join(at.folder, "beside"), "stays\n");
  };
  lose();
  const args = inPlace("same", "chunked", "--prove", "disk");
  const { data } = cairnOk(args, { cwd: at.folder });
  assert.deepEqual([data["read_again"], data["untold_files"], data["proof"]], [true, 0, null]);
  assert.equal(cairnOk(inPlace("same"), { cwd: at.folder }).data["untold_files"], null);
  lose();
  const pause = pauseFile();
  const running = startCairn(args, { cwd: at.folder, failpoint: `restore-backup.restored@${pause}` });
  await running.paused;
  fs.writeFileSync(path.join(at.folder, "same/kept.txt"), "never chanqes\n");
  fs.writeFileSync(path.join(at.folder, "same/more"), "more\n");
  fs.chmodSync(path.join(at.folder, "same/updated.txt"), 0o600);
  fs.rmSync(pause);
  const done = await running.ended;
  const left = done.data["left_out"] as { path: string; reason: string }[];
  assert.deepEqual(
    left.map(({ path: where, reason }) => [where, reason]),
    [
      ["same/updated.txt", "unsupported"],
      ["same/kept.txt", "changed_since"],
      ["same/more", "changed_since"],
    ],
    done.stdout + done.stderr,
  );
  assert.deepEqual([done.status, done.data["read_again"]], [10, false]);
});

test("backup restore of a damaged snapshot reads the undamaged entries again", async () => {
  const at = await saved();
  fs.writeFileSync(path.join(at.folder, "lost"), randomBytes(100_000));
  cairnOk(["backup", "create", at.folder, ...at.place.options]);
  damageLost(at);
  const to = newFolder("rest");
  const { status, data } = cairn(restoring(at, to));
  const left = (data["left_out"] as { path: string }[]).map((each) => each.path);
  assert.deepEqual([status, left, data["proof"], data["read_again"]], [10, ["lost"], null, true]);
  assert.equal(fs.readFileSync(path.join(to, "same/kept.txt"), "utf8"), "never changes\n");
  const other = path.join(newFolder("in"), "other");
  const both = await changed(restoring(at, other), other, CHANGES["content differs"]!);
  assert.deepEqual([both.status, fs.existsSync(other)], [6, false], both.stdout + both.stderr);
  assert.match(both.error!.message, /differently at .*kept\.txt/);
});

test("backup restore fails if the repository has wrong content, and with --prove no leaves that file out", async () => {
  const at = await saved();
  const { location: repository } = at.place;
  const opened = await (await cairnLibrary()).openRepository({ repository, password: passwordOf(at.place) });
  const [first] = (await opened.list()).snapshots;
  const file = `${at.folder.slice(1)}/same/updated.txt`;
  await withAnotherPiece(opened as OpenedRepository, first!.snapshot_id, file);
  await opened.close();
  cairnOk(["backup", "forget", first!.snapshot_id, ...at.place.options]);
  const to = path.join(newFolder("in"), "back");
  const failed = await changed(restoring(at, to), to, CHANGES["content differs"]!);
  assert.deepEqual([failed.status, fs.existsSync(to)], [6, false], failed.stdout + failed.stderr);
  assert.match(failed.error!.message, /differently at .*kept\.txt and 1 more/);
  assert.match(failed.error!.hint!, /--prove no/);
  const { status, data } = cairn(restoring(at, to, "--prove", "no"));
  const left = (data["left_out"] as { path: string; reason: string }[]).map(({ path: where, reason }) => [
    where,
    reason,
  ]);
  assert.deepEqual([status, left], [10, [["same/updated.txt", "damaged"]]]);
  assert.equal(fs.readFileSync(path.join(to, "same/kept.txt"), "utf8"), "never changes\n");
});

/** One byte of the content of `lost`. */
function damageLost({ place }: Saved): void {
  const data = path.join(place.location, "data");
  const packs = fs
    .readdirSync(data, { recursive: true, encoding: "utf8" })
    .map((name) => path.join(data, name))
    .filter((name) => fs.statSync(name).isFile());
  const pack = packs.find((name) => Math.abs(fs.statSync(name).size - 100_100) < 1000)!;
  const bytes = fs.readFileSync(pack);
  bytes[50_000]! ^= 1;
  fs.chmodSync(pack, 0o600);
  fs.writeFileSync(pack, bytes);
}

test("backup restore compares a snapshot that restic made entry by entry", { skip: noRestic }, async () => {
  const folder = newFolder("of-restic");
  makeFirst(folder);
  // Of more than restic's largest piece.
  fs.writeFileSync(path.join(folder, "chunked"), randomBytes(9 << 20));
  const place = repositoryPlace("of-restic");
  restic(place, "init");
  restic(place, "backup", folder);
  const { data } = cairnOk(restoring({ place }, newFolder("back")));
  assert.deepEqual([data["read_again"], data["proof"], data["left_out"]], [true, null, []]);
  for (const what of ["content differs", "a byte of a large file differs"]) {
    const to = path.join(newFolder("in"), "changed");
    const done = await changed(restoring({ place }, to), to, (staging) => CHANGES[what]!(path.join(staging, folder)));
    assert.deepEqual([done.status, fs.existsSync(to)], [6, false], done.stdout + done.stderr);
  }
});
