import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { CleanupResult } from "../../src/contract/looking.ts";
import { cairnOk, type Outcome, SCRATCH } from "../fixtures/command.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";

const SECRET = "TOKEN=hunter2-hunter2-hunter2\n";
let count = 0;

class Place {
  readonly folder = path.join(SCRATCH, `work${count++}`);

  constructor(folder?: string) {
    if (folder !== undefined) this.folder = folder;
    fs.mkdirSync(this.folder, { recursive: true });
  }

  write(name: string, content: string): this {
    fs.mkdirSync(path.dirname(path.join(this.folder, name)), { recursive: true });
    fs.writeFileSync(path.join(this.folder, name), content);
    return this;
  }

  remove(name: string): this {
    fs.rmSync(path.join(this.folder, name));
    return this;
  }

  save(...options: string[]): string {
    const saved = cairnOk(["save", this.folder, ...options]).data["save_point"] as { save_point_id: string };
    return saved.save_point_id;
  }

  run(...words: string[]): Outcome {
    return cairnOk(["-C", this.folder, ...words]);
  }

  removePoint(...points: string[]): { held: NonNullable<CleanupResult["still_held"]>; warnings: string } {
    const done = this.run("cleanup", "drop", ...points);
    return { held: (done.data as unknown as CleanupResult).still_held!, warnings: done.warnings.join("\n") };
  }
}

function idsOf({ points }: NonNullable<CleanupResult["still_held"]>): string[] {
  return points.map(({ save_point_id: id }) => id).sort();
}

test("cleanup drop names the other points that still have the removed content", () => {
  const place = new Place().write(".env", SECRET).write("empty", "");
  const points = Array.from({ length: 5 }, (_, at) => place.write("file", `${at}`).save());
  place.remove(".env").write("file", "other").save();
  const first = place.removePoint(points[0]!);
  assert.deepEqual(idsOf(first.held), points.slice(1).sort());
  assert.deepEqual(first.held.points[0]!.paths, [{ path: ".env" }]);
  for (const id of points.slice(1)) assert.ok(first.warnings.includes(id.slice(0, 8)), first.warnings);
  const rest = place.removePoint(...points.slice(1));
  // An empty file is no content.
  assert.deepEqual([rest.held.point_count, rest.warnings], [0, ""]);
});

test("cleanup drop finds a renamed copy of removed content, also in undo points and pinned points", () => {
  const place = new Place().write("notes.txt", SECRET);
  const first = place.save();
  place.remove("notes.txt").write("deep/other.md", SECRET);
  const renamed = place.save("--tag", "kept");
  place.run("pin", renamed);
  place.write("deep/other.md", "harmless").write("added", SECRET);
  // The undo point has the file that was added.
  const undo = place.run("restore", renamed).data["undo_id"] as string;
  fs.rmSync(path.join(place.folder, "deep"), { recursive: true });
  place.save();
  const { held, warnings } = place.removePoint(first);
  assert.deepEqual(idsOf(held), [renamed, undo].sort());
  const byId = new Map(held.points.map((each) => [each.save_point_id as string, each]));
  assert.deepEqual(byId.get(renamed)!.paths, [{ path: "deep/other.md" }]);
  assert.deepEqual([byId.get(renamed)!.pinned, byId.get(undo)!.undo], [true, true]);
  assert.deepEqual(byId.get(undo)!.paths, [{ path: "added" }]);
  assert.match(warnings, /\(undo point\)/);
  assert.match(warnings, /\(pinned\)/);
});

test("cleanup drop names the workspace of a fork whose points have the removed content", () => {
  const place = new Place().write(".env", SECRET);
  const first = place.save();
  const fork = path.join(SCRATCH, "the-fork");
  place.run("fork", first, fork);
  place.remove(".env").save();
  const { held, warnings } = place.removePoint(first);
  assert.deepEqual(
    held.points.map(({ workspace_name: name }) => name),
    ["the-fork"],
  );
  assert.match(warnings, /of the-fork/);
});

test("cleanup drop names the repositories into which a removed point was backed up", () => {
  const place = new Place().write(".env", SECRET);
  const repository = path.join(SCRATCH, "repository");
  const to = ["-r", repository, "--password-command", "echo secret"];
  cairnOk(["backup", "init", ...to]);
  const first = place.save();
  place.run("backup", "create", ...to);
  place.remove(".env").write("file", "1").save();
  place.run("backup", "create", ...to);
  const { held, warnings } = place.removePoint(first);
  assert.deepEqual(held.repositories, [{ location: repository, save_point_ids: [first] }]);
  assert.ok(warnings.includes(repository), warnings);
});

test("cleanup drop distinguishes removed content that older points had already", () => {
  const place = new Place().write("old", "old content");
  place.save();
  const second = place.write("new", "new content").save();
  place.remove("new").save();
  const { held, warnings } = place.removePoint(second);
  assert.deepEqual(
    held.points.map(({ paths }) => paths),
    [[{ path: "old" }], [{ path: "old" }]],
  );
  assert.match(warnings, /2 other points still have files of the removed points, and are older \("old"\)/);
});

test("cleanup drop lists at most 100 points with removed content and counts all of them", () => {
  const place = new Place().write(".env", SECRET);
  const first = place.save();
  for (let at = 0; at < 105; at++) place.write("file", `${at}`).save();
  const { held, warnings } = place.removePoint(first);
  assert.deepEqual([held.points.length, held.point_count], [100, 105]);
  assert.match(warnings, /105 other points still have content of the removed points \("\.env"\): .* and 95 more/);
  assert.ok(warnings.length < 600, warnings);
});

test("cleanup drop finds a part of a large removed file in another point", () => {
  // Blobs end after 8 MiB at the latest.
  const large = crypto.randomBytes(12 << 20);
  const place = new Place();
  fs.writeFileSync(path.join(place.folder, "large"), large);
  const first = place.save();
  large.write("changed at its end", large.length - 100);
  fs.writeFileSync(path.join(place.folder, "renamed"), large);
  place.remove("large");
  const second = place.save();
  assert.deepEqual(idsOf(place.removePoint(first).held), [second]);
});

test("cleanup drop names an unsealed clone as not compared", (t) => {
  const disk = loopFileSystem(t, "btrfs");
  if (disk === null) return;
  const place = new Place(path.join(disk.root, "work")).write(".env", SECRET);
  cairnOk(["init", place.folder, "--engine", "btrfs-snapshot", "--allow", "holders"]);
  const first = place.save();
  place.run("seal");
  const second = place.write("file", "1").save();
  place.remove(".env").save();
  const { held, warnings } = place.removePoint(first);
  assert.ok(held.not_looked_at.includes(second as never), JSON.stringify(held));
  assert.match(warnings, /could not be compared/);
  place.run("seal");
  assert.deepEqual(place.removePoint(second).held.not_looked_at, []);
});

test("cleanup drop removes a point despite another damaged point, and names that point as not compared", () => {
  const place = new Place().write(".env", SECRET);
  const [first, second] = [place.save(), place.write("file", "1").save()];
  place.remove(".env").save();
  const { repository } = place.run("store").data as { repository: string };
  const control = path.dirname(repository);
  const descriptors = fs
    .globSync("workspaces/*/points/*/descriptor.json", { cwd: control })
    .map((name) => path.join(control, name))
    .filter(
      (file) => (JSON.parse(fs.readFileSync(file, "utf8")) as { save_point_id: string }).save_point_id === second,
    );
  fs.writeFileSync(descriptors[0]!, "{}");
  const { held, warnings } = place.removePoint(first);
  assert.deepEqual([held.point_count, held.not_looked_at_count], [0, 1]);
  assert.match(warnings, /1 point could not be compared/);
});
