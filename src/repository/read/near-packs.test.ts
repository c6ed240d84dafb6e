import assert from "node:assert/strict";
import { fstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { CairnError } from "../../errors.ts";
import { NearPacks } from "./near-packs.ts";
import { FaultyStorage } from "../storage/testing-faulty.ts";
import { repositoryFor } from "../testing-archive.ts";

const MEBIBYTE = 1 << 20;

test("NearPacks fetches a remote pack in parts of limited size and leaves no file", async (t) => {
  const { storage, folder } = await repositoryFor(t);
  let [underway, most] = [0, 0];
  const load: FaultyStorage["load"] = async (_kind, _name, range) => {
    underway += range!.length;
    most = Math.max(most, underway);
    await setImmediate();
    underway -= range!.length;
    if (range!.offset >= 96 * MEBIBYTE) throw new CairnError("damaged", "it ends before");
    return Buffer.alloc(range!.length);
  };
  const near = new NearPacks(Object.assign(new FaultyStorage(storage), { load }), join(folder, "near"));
  const range = { pack: "ab".repeat(32), offset: MEBIBYTE, length: 90 * MEBIBYTE };
  const left = (): unknown =>
    readdirSync(near.folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  assert.equal(await near.reading(range, (descriptor) => fstatSync(descriptor).size === 91 * MEBIBYTE), true);
  assert.deepEqual(left(), []);
  const unread = (): never => assert.fail("it was read");
  assert.equal(await near.reading({ ...range, length: 128 * MEBIBYTE }, unread), false);
  assert.deepEqual(left(), []);
  // What its reader finds is no answer of whether it is there.
  const damaged = new CairnError("damaged", "of the reader");
  const reading = near.reading({ ...range, length: 10 }, () => {
    throw damaged;
  });
  await assert.rejects(reading, (error) => error === damaged);
  assert.deepEqual(left(), []);
  await assert.rejects(near.reading(range, unread, AbortSignal.abort()), { code: "interrupted" });
  assert.deepEqual(left(), []);
  assert.ok(most > 0 && most <= 32 * MEBIBYTE, `${most / MEBIBYTE} MiB at once`);
});
