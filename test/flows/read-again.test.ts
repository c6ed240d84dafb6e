import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, type Outcome, startCairn } from "../fixtures/command.ts";
import { newRepository, noRestic, repositoryPlace, restic, type TestRepository } from "../fixtures/repository.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { newFolder, pauseFile } from "../fixtures/work.ts";

/** What is restored without a digest of the whole to compare with is compared entry by entry. */

interface Saved {
  folder: string;
  place: TestRepository;
}

function saved(): Saved {
  const folder = newFolder("read-again");
  makeFirst(folder);
  // Of several blobs.
  fs.writeFileSync(path.join(folder, "chunked"), randomBytes(3_000_000));
  const place = newRepository();
  cairnOk(["backup", "create", folder, "--save", ...place.options]);
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
  "content is": (at) => fs.writeFileSync(path.join(at, "same/kept.txt"), "never chanqes\n"),
  "a byte of a large file is": (at) => {
    const fd = fs.openSync(path.join(at, "chunked"), "r+");
    fs.writeSync(fd, "other", 2_000_000);
    fs.closeSync(fd);
  },
  "a mode is": (at) => fs.chmodSync(path.join(at, "same/updated.txt"), 0o600),
  "a link's target is": (at) => {
    fs.rmSync(path.join(at, "link"));
    fs.symlinkSync("/etc/passwd", path.join(at, "link"));
  },
  "more is there than": (at) => fs.writeFileSync(path.join(at, "same/more"), ""),
  "less is there than": (at) => fs.rmSync(path.join(at, "same/kept.txt")),
};

test("parts of a snapshot are read again where that is asked for", () => {
  const at = saved();
  const to = newFolder("parts");
  const args = restoring(at, to, "same", "chunked", "link");
  assert.deepEqual(
    [cairnOk(args).data["read_again"], cairnOk(restoring(at, newFolder(), "same")).data["proof"]],
    [false, null],
  );
  const { data } = cairnOk(restoring(at, newFolder(), "same", "chunked", "link", "--prove"));
  assert.deepEqual([data["read_again"], data["proof"]], [true, null]);
});

for (const [what, change] of Object.entries(CHANGES))
  test(`a restore ends in nothing when ${what} not what was saved, in parts and beside what is lost`, async () => {
    const at = saved();
    const parts = path.join(newFolder("in"), "parts");
    const partly = await changed(restoring(at, parts, "same", "chunked", "link", "--prove"), parts, change);
    assert.deepEqual([partly.status, fs.existsSync(parts)], [6, false], partly.stdout + partly.stderr);
    // Most of the smallest pack that has content, so that its middle is hit, is one file.
    fs.writeFileSync(path.join(at.folder, "lost"), randomBytes(100_000));
    cairnOk(["backup", "create", at.folder, "--save", ...at.place.options]);
    damageLost(at);
    const rest = path.join(newFolder("in"), "rest");
    const damaged = await changed(restoring(at, rest), rest, change);
    assert.deepEqual([damaged.status, fs.existsSync(rest)], [6, false], damaged.stdout + damaged.stderr);
  });

test("what is left of a damaged snapshot is read again, and said to be as it was", () => {
  const at = saved();
  fs.writeFileSync(path.join(at.folder, "lost"), randomBytes(100_000));
  cairnOk(["backup", "create", at.folder, "--save", ...at.place.options]);
  damageLost(at);
  const to = newFolder("rest");
  const { status, data } = cairn(restoring(at, to));
  const left = (data["left_out"] as { path: string }[]).map((each) => each.path);
  assert.deepEqual([status, left, data["proof"], data["read_again"]], [10, ["lost"], null, true]);
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

test("a snapshot that restic made is compared entry by entry", { skip: noRestic }, async () => {
  const folder = newFolder("of-restic");
  makeFirst(folder);
  const place = repositoryPlace("of-restic");
  restic(place, "init");
  restic(place, "backup", folder);
  const { data } = cairnOk(restoring({ place }, newFolder("back")));
  assert.deepEqual([data["read_again"], data["proof"], data["left_out"]], [true, null, []]);
  const to = path.join(newFolder("in"), "changed");
  const inside = (staging: string): void =>
    fs.writeFileSync(path.join(staging, folder, "same/kept.txt"), "never chanqes\n");
  const done = await changed(restoring({ place }, to), to, inside);
  assert.deepEqual([done.status, fs.existsSync(to)], [6, false], done.stdout + done.stderr);
});
