import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Progress } from "../../contract/index.ts";
import { backupScene, opened } from "../testing-far.ts";

const SENT = 1000;

for (const save of [true, false])
  test(`the progress of a backup ${save ? "that saves too" : "of a point"} counts bytes that have reached the repository`, async (t) => {
    const { client, repository, place, write } = await backupScene(t, "far");
    write("large", randomBytes(3_000_000).toString("hex"));
    if (!save) await client.save();
    // Nothing arrives but the beginning of each pack until that has been told.
    const told = Promise.withResolvers<void>();
    const far = opened.far!;
    const saveFile = far.saveFile.bind(far);
    far.saveFile = async (kind, name, path, options) => {
      options?.onSent?.(SENT);
      await told.promise;
      await saveFile(kind, name, path, options);
    };
    const events: Progress[] = [];
    let snapshots: number | null = null;
    const onProgress = (progress: Progress): void => {
      if (progress.phase !== "uploading") return;
      events.push(progress);
      if (progress.bytes === 2 * SENT) told.resolve();
      if (progress.done === progress.total) snapshots ??= readdirSync(join(place, "snapshots")).length;
    };
    await client.createBackup(repository, { save, onProgress });
    assert.equal(snapshots, 1, "all was said to be done before the snapshot was there");
    const [slow, last] = [events.find(({ bytes }) => bytes === 2 * SENT)!, events.at(-1)!];
    assert.equal(slow.done, 0);
    assert.ok(slow.total_bytes! > 3_000_000 && slow.total! > 4, JSON.stringify(slow));
    assert.match(slow.current!, /work/);
    assert.ok(last.bytes === last.total_bytes && last.bytes! > 3_000_000, JSON.stringify(last));
    assert.equal(last.total, slow.total);
  });

test("the progress of a stream counts only blobs that have reached the repository", async (t) => {
  const { repository } = await backupScene(t, "far");
  const content = randomBytes(20_000_000);
  const told = Promise.withResolvers<void>();
  const far = opened.far!;
  const saveFile = far.saveFile.bind(far);
  far.saveFile = async (...given) => {
    await told.promise;
    await saveFile(...given);
  };
  let hasEnded = false;
  async function* stream(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < content.length; at += 1_000_000) yield content.subarray(at, at + 1_000_000);
    hasEnded = true;
  }
  let [waiting, last] = [-1, -1];
  const onProgress = ({ bytes = 0 }: Progress): void => {
    last = bytes;
    if (!hasEnded || waiting >= 0) return;
    waiting = bytes;
    told.resolve();
  };
  await repository.createFromStream(stream(), { onProgress });
  assert.ok(waiting >= 0 && waiting < 4_000_000, `${waiting} bytes`);
  assert.equal(last, content.length);
});
