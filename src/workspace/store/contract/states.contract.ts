import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import type { EngineClauses } from "../../../../test/fixtures/engine-clauses.ts";
import { assertFolder, readFolder } from "../../../../test/fixtures/folder-state.ts";
import { assertHeldTidy } from "../../../../test/fixtures/held-place.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../../../../test/fixtures/two-states.ts";
import { cairnLibrary, resticCheck } from "../../../../test/fixtures/work.ts";
import { setAttribute } from "../testing-edits.ts";
import { walkDigests } from "../testing-walk.ts";

/** Restored states equal saved ones, and have the digests of an independent walk. */
export function stateClauses({ clause, holds }: EngineClauses): void {
  clause(
    "save, seal, verify, restore and fork agree with the digests that an independent walk computes",
    async (place) => {
      const { client, folder, volume, engine } = place;
      const first = { state: readFolder(folder), digests: walkDigests(folder) };
      const a = await client.save({ message: "first" });
      makeSecond(folder);
      const second = { state: readFolder(folder), digests: walkDigests(folder) };
      const b = await client.save({ message: "second" });
      for (const point of [a, b]) {
        assert.equal(point.effective_engine, engine);
        assert.deepEqual(point.degraded, []);
        assert.deepEqual([point.sealed, point.entries === null], [!holds, holds]);
      }
      assert.deepEqual(await client.seal(), { sealed: holds ? 2 : 0 });
      const [sealedB, sealedA] = (await client.history(undefined, 0, { all: true })).save_points;
      assert.equal(sealedA!.payload_root_hash, first.digests.state);
      assert.equal(sealedB!.payload_root_hash, second.digests.state);
      assert.equal((await client.status()).clean, true);
      await client.setEngine("copy");
      const copied = await client.save({ message: "by the copy engine" });
      assert.deepEqual([copied.unchanged, copied.metadata_digest], [true, sealedB!.metadata_digest]);
      await client.setEngine(engine);
      assert.deepEqual((await client.verifyAll()).problems, []);

      makeUnsaved(folder);
      const unsaved = readFolder(folder);
      await client.restore({ target: a.save_point_id });
      assertFolder(folder, first.state, "restored");
      await client.undo();
      assertFolder(folder, unsaved, "undone");

      const fork = path.join(volume.root, "fork");
      await client.fork(b.save_point_id, fork);
      assertFolder(fork, second.state, "forked");
      resticCheck(client, engine);
    },
    { fill: makeFirst },
  );

  clause(
    "a point that is sealed later leaves out the entries that were ignored or excluded at its save",
    async ({ client, folder, volume }) => {
      fs.writeFileSync(path.join(folder, ".cairnignore"), "/goes/\n*.log\n");
      fs.writeFileSync(path.join(folder, "same/noise.log"), "noise\n");
      fs.writeFileSync(path.join(folder, "secret"), "not this time\n");
      const { save_point_id: id } = await client.save({ exclude: ["/secret"] });
      // Rules that change after the save do not apply.
      fs.writeFileSync(path.join(folder, ".cairnignore"), "/same/\n");
      await client.seal();
      const to = path.join(volume.root, "to");
      await client.restore({ target: id, to });
      for (const name of ["goes", "same/noise.log", "secret"])
        assert.equal(fs.existsSync(path.join(to, name)), false, name);
      assert.equal(fs.readFileSync(path.join(to, ".cairnignore"), "utf8"), "/goes/\n*.log\n");
      assert.ok(fs.existsSync(path.join(to, "same/kept.txt")));
      const [point] = (await client.history(undefined, 0, { all: true })).save_points;
      assert.equal(point!.payload_root_hash, walkDigests(to).state);
      // The engine that reads the folder at once gives the same point.
      fs.writeFileSync(path.join(folder, ".cairnignore"), "/goes/\n*.log\n");
      await client.setEngine("copy");
      const copied = await client.save({ exclude: ["/secret"] });
      assert.equal(copied.payload_root_hash, point!.payload_root_hash);
      // A restore leaves ignored files alone.
      fs.writeFileSync(path.join(folder, "same/noise.log"), "louder\n");
      fs.rmSync(path.join(folder, "same/kept.txt"));
      await client.restore({ target: id });
      assert.equal(fs.readFileSync(path.join(folder, "same/noise.log"), "utf8"), "louder\n");
      assert.equal(fs.readFileSync(path.join(folder, "secret"), "utf8"), "not this time\n");
      assert.ok(fs.existsSync(path.join(folder, "same/kept.txt")));
    },
    { fill: makeFirst },
  );

  clause(
    "caches and large files that a save excludes are not in its point, even if the point is sealed later",
    async ({ client, folder, volume }) => {
      const tag = path.join(folder, "cache/CACHEDIR.TAG");
      fs.mkdirSync(path.join(folder, "cache/deep"), { recursive: true });
      fs.writeFileSync(tag, "Signature: 8a477f597d28d172789f06886806bc55\n");
      fs.writeFileSync(path.join(folder, "cache/deep/x"), "1");
      fs.writeFileSync(path.join(folder, "large"), "");
      fs.truncateSync(path.join(folder, "large"), 2 ** 30);
      const asked = { excludeCaches: true, excludeLargerThan: 2 ** 30 - 1 };
      const saved = await client.save(asked);
      assert.deepEqual(
        saved.left_out.map((entry) => [entry.path, entry.reason]),
        [
          ["cache", "excluded"],
          ["large", "excluded"],
        ],
      );
      assert.equal((await client.save({ ...asked, skipUnchanged: true })).made, false);
      // Changes after the save do not matter.
      fs.truncateSync(path.join(folder, "large"), 2);
      fs.rmSync(tag);
      await client.seal();
      const to = path.join(volume.root, "to");
      await client.restore({ target: saved.save_point_id, to });
      assert.deepEqual(fs.readdirSync(path.join(to, "cache")), ["CACHEDIR.TAG"]);
      assert.equal(fs.existsSync(path.join(to, "large")), false);
      await client.restore({ target: saved.save_point_id });
      assert.equal(fs.readFileSync(path.join(folder, "cache/deep/x"), "utf8"), "1");
      assert.equal(fs.statSync(path.join(folder, "large")).size, 2);
      assert.ok(fs.existsSync(tag));
      const next = await client.save(asked);
      assert.deepEqual(
        next.left_out.map((entry) => entry.path),
        ["cache"],
      );
      await client.restore({ target: saved.save_point_id });
      assert.equal(fs.statSync(path.join(folder, "large")).size, 2);
    },
    { fill: makeFirst },
  );

  clause("an empty folder and an emptied one can be saved and restored", async (place) => {
    const { client, folder } = place;
    const empty = { state: readFolder(folder), digest: walkDigests(folder).state };
    const { save_point_id: nothing } = await client.save();
    makeFirst(folder);
    const full = readFolder(folder);
    const { save_point_id: everything } = await client.save();
    await client.restore({ target: nothing });
    assertFolder(folder, empty.state, "nothing");
    await client.save();
    await client.restore({ target: everything });
    assertFolder(folder, full, "everything");
    await client.seal();
    const { save_points: points } = await client.history(undefined, 0, { all: true });
    assert.equal(points.at(-1)!.payload_root_hash, empty.digest);
    assert.deepEqual((await client.verifyAll()).problems, []);
    assertHeldTidy(place, "empty");
  });

  clause("status, save and diff count new and broken hard links alike", async (place) => {
    const { client, folder, holds } = { ...place, holds: place.client.engineType !== "copy" };
    const at = (name: string): string => path.join(folder, name);
    for (const name of ["first", "second", "beside"]) fs.mkdirSync(at(name));
    for (const name of ["first/pair", "first/gone", "first/moved", "beside/plain"]) fs.writeFileSync(at(name), name);
    for (const name of ["pair", "gone", "moved"]) fs.linkSync(at(`first/${name}`), at(`second/${name}`));
    await client.save();
    await client.seal();
    const changes: [string, () => void, Record<string, string>][] = [
      [
        "a pair that is two files now",
        () => {
          execFileSync("cp", ["-a", at("first/pair"), at("first/new")]);
          fs.renameSync(at("first/new"), at("first/pair"));
        },
        { "first/pair": "links", "second/pair": "links" },
      ],
      ["a name that is gone", () => fs.rmSync(at("first/gone")), { "first/gone": "", "second/gone": "links" }],
      [
        "a directory that is another one, by whose name a group went",
        () => fs.renameSync(at("first"), at("third")),
        {
          first: "",
          third: "",
          "first/pair": "",
          "third/pair": "",
          "first/moved": "",
          "third/moved": "",
          "second/moved": "links",
        },
      ],
      [
        "two that are one now",
        () => {
          fs.linkSync(at("beside/plain"), at("beside/other"));
          fs.renameSync(at("beside/other"), at("second/pair"));
        },
        { "beside/plain": "links", "second/pair": "" },
      ],
    ];
    for (const [what, change, expected] of changes) {
      change();
      const { entries } = await client.diff("head");
      const told = entries.filter(({ aspects }) => aspects.join() !== "times");
      const seen = told.map(({ path: name, change: kind, aspects }) => [
        name,
        kind === "modified" && expected[name] !== "" ? aspects.filter((each) => each !== "times").join() : "",
      ]);
      const paths = told.flatMap(({ from_path: from }) => (from === undefined ? [] : [[from, ""]]));
      assert.deepEqual(Object.fromEntries([...seen, ...paths]), expected, what);
      const counts = { added: 0, modified: 0, removed: 0 };
      for (const entry of entries) {
        assert.notEqual(entry.change, "not_kept");
        if (entry.change !== "renamed") counts[entry.change as keyof typeof counts]++;
        else {
          counts.added++;
          counts.removed++;
        }
      }
      const status = await client.status();
      assert.deepEqual([status.clean, status.changes], [false, counts], what);
      const saved = await client.save({ skipUnchanged: true });
      assert.deepEqual([saved.made, saved.changes], [true, holds ? null : counts], what);
      await client.seal();
      assert.equal((await client.save({ skipUnchanged: true })).made, false, what);
    }
  });

  clause("a change of the folder's own mode or owner alone is reported, saved and restored", async (place) => {
    const { client, folder } = place;
    const ownFacts = (): unknown => {
      const { mode, uid, gid } = fs.statSync(folder);
      return [mode & 0o7777, uid, gid];
    };
    fs.chmodSync(folder, 0o755);
    fs.writeFileSync(path.join(folder, "entry"), "content");
    const open = ownFacts();
    const { save_point_id: target } = await client.save();
    await client.seal();
    assert.equal((await client.status()).clean, true);
    fs.chmodSync(folder, 0o700);
    const isRoot = process.geteuid?.() === 0;
    if (isRoot) fs.chownSync(folder, 5, 6);
    const closed = ownFacts();
    const own = { path: "", kind: "directory" };
    const aspects = isRoot ? ["mode", "owner"] : ["mode"];
    const status = await client.status();
    assert.deepEqual([status.clean, status.changes], [false, { added: 0, modified: 1, removed: 0 }]);
    assert.deepEqual((await client.diff(target)).entries, [{ ...own, change: "modified", aspects }]);
    assert.deepEqual((await client.diff(target, null, { paths: ["entry"] })).entries, []);
    assert.deepEqual((await client.planRestore({ target })).entries, [{ ...own, action: "metadata" }]);
    assert.deepEqual((await client.planRestore({ target, paths: ["entry"] })).entries, []);
    const second = await client.save({ skipUnchanged: true });
    assert.deepEqual([second.save_point_id === target, second.unchanged], [false, false]);
    if (second.sealed) assert.equal(second.changes?.modified, 1);
    await client.seal();
    const sealed = (await client.history(undefined, 0, { all: true })).save_points[0]!;
    assert.deepEqual([sealed.save_point_id, sealed.unchanged], [second.save_point_id, false]);
    assert.equal((await client.status()).clean, true);
    assert.equal((await client.save({ skipUnchanged: true })).save_point_id, second.save_point_id);
    assert.deepEqual((await client.diff(target, second.save_point_id)).entries, [
      { ...own, change: "modified", aspects },
    ]);
    await client.restore({ target, paths: ["entry"] });
    assert.deepEqual(ownFacts(), closed);
    const { changes, method } = await client.restore({ target });
    assert.deepEqual(ownFacts(), open);
    if (method === "entries") assert.deepEqual(changes, { created: 0, updated: 0, deleted: 0, metadata: 1 });
    assert.equal((await client.status()).clean, true);
    await client.undo();
    assert.deepEqual(ownFacts(), closed);
    const fork = path.join(place.volume.root, "fork");
    await client.fork(target, fork);
    const forked = await (await cairnLibrary()).open(fork);
    assert.equal((await forked.status()).clean, true);
  });

  clause(
    "a change of extended attributes alone is detected, saved and restored, even if no time changes",
    async ({ client, folder }) => {
      for (const name of ["moded/time", "goes"]) setAttribute(path.join(folder, name), "user.note", "first");
      const first = readFolder(folder);
      const { save_point_id: target } = await client.save();
      await client.seal();
      const { clean } = await client.status();
      for (const name of ["moded/attribute", "moded/time", "goes"])
        assert.ok(setAttribute(path.join(folder, name), "user.note", "other"), name);
      const status = await client.status();
      assert.deepEqual([clean, status.clean, status.changes.modified], [true, false, 3]);
      await client.save();
      await client.seal();
      const [second] = (await client.history(undefined, 0, { all: true })).save_points;
      assert.equal(second!.metadata_digest, walkDigests(folder).meta);
      await client.restore({ target });
      assertFolder(folder, first, "restored");
    },
    { fill: makeFirst },
  );
}
