import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { errorReply, TestingS3Server } from "../../src/repository/storage/s3/testing-s3-server.ts";
import { buildCommand, startCairn, type Outcome } from "../fixtures/command.ts";
import { repositoryPlace } from "../fixtures/repository.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { newFolder } from "../fixtures/work.ts";

/** Backups into a bucket as the server sees them: what they cost, and what they bear. */

const KEY = { accessKeyId: "CAIRNTESTKEY", secretAccessKey: "SecretThatMustNotBeSeen" };
const env = { AWS_ACCESS_KEY_ID: KEY.accessKeyId, AWS_SECRET_ACCESS_KEY: KEY.secretAccessKey };
const server = await TestingS3Server.start(KEY);
let buckets = 0;

buildCommand();
after(() => server.stop());

/** Runs `cairn backup …`; the server lives in this process, so nothing here may wait for it without giving way. */
async function backup(options: readonly string[], ...args: string[]): Promise<Outcome> {
  const [verb, ...rest] = args as [string, ...string[]];
  const done = await startCairn(["backup", verb, ...options, ...rest], { env }).ended;
  assert.ok(!`${done.stdout}${done.stderr}`.includes("MustNotBeSeen"));
  return done;
}

function bucketOptions(): string[] {
  const { passwordFile } = repositoryPlace("bucket");
  return ["-r", `s3:${server.address}/${buckets++}`, "--password-file", passwordFile];
}

/** Method and kind of each request since the last call, e.g. `PUT data`. */
function takeSeen(): string[] {
  const kinds = server.seen.map(({ method, path: seen, query }) => {
    const [, kind = ""] = /(?:^|\/)\d+\/([a-z]+)/.exec(query.get("prefix") ?? seen) ?? [];
    return `${method} ${kind}`;
  });
  server.seen.length = 0;
  return kinds;
}

test("a backup of a small change uploads two packs, an index, a snapshot and a lock", async () => {
  const folder = newFolder("bucket");
  makeFirst(folder);
  const options = bucketOptions();
  assert.equal((await backup(options, "init")).status, 0);
  assert.equal((await backup(options, "create", "-C", folder)).status, 0);
  takeSeen();
  fs.writeFileSync(path.join(folder, "changed"), "changed");
  assert.equal((await backup(options, "create", "-C", folder)).status, 0);
  const seen = takeSeen();
  const writes = seen.filter((request) => !/^(?:GET|HEAD)/.test(request));
  assert.deepEqual(writes, ["PUT locks", "PUT data", "PUT data", "PUT index", "PUT snapshots", "DELETE locks"]);
  assert.deepEqual(
    seen.filter((request) => request === "GET data").length,
    1,
    "one listing compares the sizes of packs",
  );
  assert.ok(seen.length <= 19, seen.join(", "));
  assert.equal((await backup(options, "create", "-C", folder)).status, 0);
  const unchanged = takeSeen().filter((request) => !/^(?:GET|HEAD)/.test(request));
  assert.deepEqual(unchanged, ["PUT locks", "PUT snapshots", "DELETE locks"]);
});

test("a backup retries an overloaded bucket, and fails with permission if the bucket denies access", async () => {
  const folder = newFolder("bucket");
  makeFirst(folder);
  const options = bucketOptions();
  assert.equal((await backup(options, "init")).status, 0);
  server.fail("PUT", errorReply(503, "SlowDown", "reduce your request rate"), 2);
  server.fail("GET", errorReply(500, "InternalError", "try again"), 1);
  assert.equal((await backup(options, "create", "-C", folder)).status, 0);
  assert.equal((await backup(options, "verify")).status, 0);
  server.fail("PUT", errorReply(403, "AccessDenied", "read only"), 1);
  const refused = await backup(options, "create", "-C", folder);
  assert.deepEqual([refused.status, refused.error?.code], [9, "permission"]);
});

test("a backup interrupted during an upload leaves no lock, and the next backup succeeds", async () => {
  const folder = newFolder("bucket");
  makeFirst(folder);
  const options = bucketOptions();
  assert.equal((await backup(options, "init")).status, 0);
  const uploading = Promise.withResolvers<void>();
  let stalled = false;
  server.faults.push(({ method, path: seen }) => {
    if (stalled || method !== "PUT" || !seen.includes("/data/")) return false;
    uploading.resolve();
    stalled = true;
    return true;
  });
  const running = startCairn(["backup", "create", ...options, "-C", folder], { env });
  await uploading.promise;
  running.child.kill("SIGINT");
  assert.equal((await running.ended).status, 130);
  const left = [...server.objects.keys()].filter((key) => key.startsWith(`${buckets - 1}/`));
  assert.deepEqual(
    left.filter((key) => /\/(?:locks|snapshots)\//.test(key)),
    [],
  );
  assert.equal((await backup(options, "create", "-C", folder)).status, 0);
  assert.equal((await backup(options, "verify")).status, 0);
});
