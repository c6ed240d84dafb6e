import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import type { Fault } from "../../repository/storage/testing-faulty.ts";
import { hasCode } from "../../keep/testing-folder.ts";
import { backupScene, type BackupScene, opened, SCHEMES } from "../testing-far.ts";

async function* pieces(...all: (Uint8Array | Error)[]): AsyncGenerator<Uint8Array> {
  for (const piece of all) {
    await wait(1);
    if (piece instanceof Error) throw piece;
    yield piece;
  }
}

function files(place: string, kind: string): string[] {
  return readdirSync(join(place, kind), { recursive: true, encoding: "utf8" }).filter((name) => name.length >= 64);
}

async function snapshotsOf({ repository }: BackupScene): Promise<number> {
  return (await repository.list()).snapshots.length;
}

for (const scheme of SCHEMES) {
  describe(`createFromStream into a repository on a ${scheme} storage`, () => {
    test("createFromStream makes a snapshot of one file that can be verified and restored", async (t) => {
      const { repository, root } = await backupScene(t, scheme);
      const content = randomBytes(3_000_000);
      const parts = [content.subarray(0, 1_200_000), content.subarray(1_200_000)];
      const made = await repository.createFromStream(pieces(...parts), { filename: "dumps/db.sql", tags: ["nightly"] });
      assert.deepEqual(made.snapshot?.paths, ["/dumps/db.sql"]);
      assert.deepEqual([made.save_point_id, made.parent, made.unchanged], [null, null, false]);
      assert.deepEqual([made.snapshot?.tags, made.snapshot?.files], [["nightly"], 2]);
      assert.ok(made.snapshot!.bytes! > 3_000_000, "with the manifest");
      const verified = await repository.verify();
      assert.deepEqual([verified.problems, verified.checked.digests], [[], 1]);
      const target = join(root, "restored");
      const restored = await repository.restore("latest", target);
      assert.deepEqual(readdirSync(target), ["db.sql"]);
      assert.ok(readFileSync(join(target, "db.sql")).equals(content));
      assert.equal(statSync(join(target, "db.sql")).mode & 0o777, 0o600);
      assert.ok(restored.proof !== null && restored.proof.receipt !== null);
      assert.equal(restored.proof.metadata_equal, true);
      const chosen = join(root, "chosen");
      await repository.restore("latest", chosen, { paths: ["db.sql"] });
      assert.ok(readFileSync(join(chosen, "db.sql")).equals(content));
      // At the top of the snapshot its manifest lies beside it, and is none of what was saved.
      await repository.createFromStream(pieces(...parts), { filename: "top" });
      for (const [i, choice] of [{}, { include: ["*"] }].entries()) {
        const whole = await repository.restore("latest", join(root, `top-${i}`), choice);
        assert.deepEqual(readdirSync(join(root, `top-${i}`)), ["top"]);
        assert.ok(whole.proof?.receipt !== null);
      }
    });

    test("createFromStream reports an unchanged stream if the same bytes are stored again under the same name", async (t) => {
      const scene = await backupScene(t, scheme);
      const { repository, place } = scene;
      const content = randomBytes(2_000_000);
      const first = await repository.createFromStream(pieces(content), { filename: "a" });
      const packs = files(place, "data").length;
      const same = await repository.createFromStream(pieces(content), { filename: "a", skipIfUnchanged: true });
      assert.deepEqual([same.snapshot, same.unchanged, same.parent], [null, true, first.snapshot?.snapshot_id]);
      assert.equal(files(place, "data").length, packs);
      const again = await repository.createFromStream(pieces(content), { filename: "a" });
      assert.deepEqual([again.unchanged, again.added.data_blobs], [true, 1], "the manifest, for the time is another");
      // The same bytes under another name are another file, which has no parent.
      const other = await repository.createFromStream(pieces(content), { filename: "b", skipIfUnchanged: true });
      assert.deepEqual([other.parent, other.unchanged, other.snapshot === null], [null, false, false]);
      const { entries } = await repository.diff(first.snapshot!.snapshot_id, other.snapshot!.snapshot_id);
      assert.deepEqual(
        entries.map(({ change, path }) => `${change} ${path}`),
        ["removed a", "added b"],
      );
      assert.equal(await snapshotsOf(scene), 3);
    });
  });
}

test("createFromStream leaves no snapshot and no temporary file if the stream fails, stops or is empty", async (t) => {
  const scene = await backupScene(t, "local");
  const { repository, place } = scene;
  const broken = repository.createFromStream(pieces(randomBytes(20_000_000), new Error("the pipe broke")));
  await assert.rejects(
    broken,
    (error: Error) => hasCode("io")(error) && error.message.endsWith("to its end: the pipe broke"),
  );
  await assert.rejects(repository.createFromStream(pieces()), hasCode("refused"));
  const stop = new AbortController();
  const stuck = Promise.withResolvers<never>();
  const endless = (async function* () {
    yield randomBytes(1000);
    setTimeout(() => stop.abort(), 20);
    await stuck.promise;
  })();
  await assert.rejects(repository.createFromStream(endless, { signal: stop.signal }), hasCode("interrupted"));
  assert.equal(await snapshotsOf(scene), 0);
  assert.deepEqual(files(place, "locks"), []);
  const left = readdirSync(join(place, "tmp"), { recursive: true, withFileTypes: true });
  assert.deepEqual(
    left.filter((entry) => entry.isFile()).map(({ name }) => name),
    [],
  );
  // What was packed before it broke is no damage, and goes.
  assert.deepEqual(
    (await repository.verify()).problems.filter(({ severity }) => severity === "damage"),
    [],
  );
  await repository.prune({ instant: true, allow: ["empty"] });
  assert.deepEqual(files(place, "data"), []);
});

test("createFromStream makes no snapshot if the signal comes together with the stream's end", async (t) => {
  const scene = await backupScene(t, "local");
  const stop = new AbortController();
  let left = 2;
  const content: AsyncIterable<Uint8Array> = {
    [Symbol.asyncIterator]: () => ({
      next: async () => (left-- > 0 ? { value: randomBytes(1000) } : { value: undefined, done: true }),
      return: async () => {
        stop.abort();
        return { value: undefined, done: true };
      },
    }),
  };
  await assert.rejects(scene.repository.createFromStream(content, { signal: stop.signal }), hasCode("interrupted"));
  assert.equal(await snapshotsOf(scene), 0);
});

test("createFromCommand makes no snapshot if the command fails after output", async (t) => {
  const scene = await backupScene(t, "local");
  const { repository } = scene;
  const failing = repository.createFromCommand(["sh", "-c", "echo half; exit 3"]);
  await assert.rejects(failing, (error: Error) => hasCode("io")(error) && /status 3/.test(error.message));
  await assert.rejects(repository.createFromCommand(["sh", "-c", "echo half; kill -9 $$"]), /SIGKILL/);
  await assert.rejects(repository.createFromCommand(["/no/such/program"]), hasCode("not_found"));
  await assert.rejects(repository.createFromCommand([]), hasCode("usage"));
  assert.equal(await snapshotsOf(scene), 0);
  await repository.createFromCommand(["sh", "-c", "echo whole"], { filename: "said" });
  assert.equal(await snapshotsOf(scene), 1);
});

test("a dry run of createFromStream counts the bytes and writes nothing", async (t) => {
  const scene = await backupScene(t, "local");
  const before = ["data", "index", "snapshots", "locks"].map((kind) => files(scene.place, kind).length);
  const {
    snapshot,
    added,
    dry_run: isDry,
  } = await scene.repository.createFromStream(pieces(randomBytes(1_000_000)), {
    dryRun: true,
  });
  assert.deepEqual([snapshot, isDry, added.packs], [null, true, 0]);
  assert.ok(added.bytes >= 1_000_000 && added.data_blobs >= 2);
  assert.deepEqual(
    ["data", "index", "snapshots", "locks"].map((kind) => files(scene.place, kind).length),
    before,
  );
});

test("createFromStream refuses an invalid file name before it reads the stream", async (t) => {
  const { repository } = await backupScene(t, "local");
  for (const filename of [
    "",
    "/",
    "..",
    "a/../b",
    "a//b",
    "a/",
    ".cairn/x",
    "nul\0",
    "x".repeat(256),
    "a\ufffdb",
    "\ud800",
  ])
    await assert.rejects(repository.createFromStream(pieces(), { filename }), hasCode("usage"), filename);
});

test("createFromStream leaves no snapshot if a storage call fails, and the next attempt succeeds", async (t) => {
  const scene = await backupScene(t, "faulty");
  const faults: Fault[] = [
    { operation: "saveFile", kind: "data", fault: "fail" },
    { operation: "saveFile", kind: "data", fault: "late_success", after: 1 },
    { operation: "save", kind: "index", fault: "fail" },
    { operation: "save", kind: "snapshots", fault: "no_space" },
  ];
  for (const [i, fault] of faults.entries()) {
    const content = randomBytes(20_000_000);
    const parts = [content.subarray(0, 18_000_000), content.subarray(18_000_000)];
    opened.faulty!.arm(fault);
    await assert.rejects(scene.repository.createFromStream(pieces(...parts)), JSON.stringify(fault));
    opened.faulty!.disarm();
    assert.equal(await snapshotsOf(scene), i, JSON.stringify(fault));
    await scene.repository.createFromStream(pieces(...parts));
  }
  assert.deepEqual(
    (await scene.repository.verify()).problems.filter(({ severity }) => severity === "damage"),
    [],
  );
});
