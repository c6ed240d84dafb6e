import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { walkDigests } from "../../src/engines/testing-walk.ts";
import { CairnError } from "../../src/errors.ts";
import { openS3Storage, S3Storage } from "../../src/repository/storage/s3.ts";
import { parseS3Location } from "../../src/repository/storage/s3-location.ts";
import { S3Requests } from "../../src/repository/storage/s3-requests.ts";
import { storageContract } from "../../src/repository/storage/storage.contract.ts";
import { SCRATCH } from "../fixtures/command.ts";
import { startRadosgw } from "../fixtures/radosgw.ts";
import {
  backup,
  noRestic,
  repositoryPlace,
  restic,
  resticSnapshots,
  tryBackup,
  type TestRepository,
} from "../fixtures/repository.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { newFolder } from "../fixtures/work.ts";

/** A real radosgw: what every storage owes, and Cairn and restic in one bucket. */

const gateway = await startRadosgw();
const unable = "reason" in gateway ? gateway.reason : false;
const open: S3Storage[] = [];
let prefixes = 0;

if (!("reason" in gateway)) {
  Object.assign(process.env, gateway.env);
  await gateway.makeBucket("cairn");
  storageContract("s3 on radosgw", () => storage());
  storageContract("s3 on radosgw, everything in parts", () => storage({ multipart: { above: 4, partSize: 5 << 20 } }));
}

after(async () => {
  for (const each of open) await each.close();
  if (!("reason" in gateway)) await gateway.close();
});

function address(): string {
  assert.ok(!("reason" in gateway));
  return `${gateway.endpoint}/cairn/of tests+/${prefixes++}`;
}

function credentials(): { accessKeyId: string; secretAccessKey: string } {
  assert.ok(!("reason" in gateway));
  return { accessKeyId: gateway.env.AWS_ACCESS_KEY_ID, secretAccessKey: gateway.env.AWS_SECRET_ACCESS_KEY };
}

async function storage(
  options: Partial<Parameters<typeof S3Storage.open>[0]> = {},
  at = address(),
): Promise<S3Storage> {
  const opened = await S3Storage.open({ place: parseS3Location(at), credentials: credentials(), ...options });
  open.push(opened);
  return opened;
}

function place(): TestRepository {
  const { passwordFile } = repositoryPlace("s3");
  const location = `s3:${address().replace("of tests+", "repositories")}`;
  return { location, passwordFile, options: ["-r", location, "--password-file", passwordFile] };
}

function nameOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function coded(code: string, words: RegExp = /./): (error: unknown) => boolean {
  return (error) => error instanceof CairnError && error.code === code && words.test(error.message);
}

function writeTemporary(bytes: Uint8Array): string {
  const file = path.join(SCRATCH, `temporary-${prefixes++}`);
  fs.writeFileSync(file, bytes);
  return file;
}

test("restic checks and restores what cairn backup wrote into a bucket", { skip: unable || noRestic }, () => {
  const folder = newFolder("backup");
  makeFirst(folder);
  const bucket = place();
  backup(bucket, "init");
  backup(bucket, "create", "--save", "-C", folder);
  const wanted = walkDigests(folder).state;
  makeSecond(folder);
  backup(bucket, "create", "--save", "-C", folder);
  restic(bucket, "check", "--read-data");
  const [first] = resticSnapshots(bucket);
  const target = path.join(SCRATCH, "restored");
  restic(bucket, "restore", first!.id, "--target", target, "--include", folder);
  assert.equal(walkDigests(path.join(target, folder)).state, wanted);
  backup(bucket, "verify");
  const ours = path.join(SCRATCH, "restored by us");
  backup(bucket, "restore", "latest", "--to", ours);
  assert.equal(walkDigests(ours).state, walkDigests(folder).state);
});

test("cairn lists a bucket that restic made and backs up into it beside restic", { skip: unable || noRestic }, () => {
  const folder = newFolder("backup");
  makeFirst(folder);
  const bucket = place();
  restic(bucket, "init");
  restic(bucket, "backup", folder);
  const [theirs] = resticSnapshots(bucket);
  backup(bucket, "verify");
  const ours = backup(bucket, "create", "--save", "-C", folder).data as { parent: string | null };
  assert.equal(ours.parent, theirs?.id);
  restic(bucket, "backup", folder);
  restic(bucket, "forget", "--keep-last", "1", "--prune");
  makeSecond(folder);
  backup(bucket, "create", "--save", "-C", folder);
  restic(bucket, "check", "--read-data");
  const listed = backup(bucket, "list").data["snapshots"] as unknown[];
  assert.equal(listed.length, resticSnapshots(bucket).length);
});

test("init is refused where there is a repository, and where there is no bucket", { skip: unable }, () => {
  const absent = place();
  const location = absent.location.replace("/cairn/", "/absent/");
  const refusal = tryBackup({ ...absent, options: ["-r", location, ...absent.options.slice(2)] }, "init").error;
  assert.deepEqual([refusal?.code, /bucket/.test(refusal?.hint ?? "")], ["not_found", true]);
  const bucket = place();
  backup(bucket, "init");
  assert.equal(tryBackup(bucket, "init").error?.code, "already_exists");
});

test("of two that make a config at once one is refused", { skip: unable }, async () => {
  const at = address();
  const [one, two] = [await storage({}, at), await storage({}, at)];
  assert.deepEqual([await one.conditionalWrites(), await two.conditionalWrites()], [true, true]);
  const made = await Promise.allSettled([
    one.save("config", "config", Buffer.from("one")),
    two.save("config", "config", Buffer.from("two")),
  ]);
  assert.deepEqual(made.map(({ status }) => status).toSorted(), ["fulfilled", "rejected"]);
  const winner = made[0]?.status === "fulfilled" ? "one" : "two";
  assert.equal(Buffer.from(await one.load("config", "config")).toString(), winner);
  assert.deepEqual((await one.list("data")).length, 0);
});

test(
  "a large file goes in parts, and an upload that somebody left is swept away once it is old",
  { skip: unable },
  async () => {
    const at = address();
    const parts = await storage({ multipart: { above: 6 << 20, partSize: 5 << 20 } }, at);
    const bytes = randomBytes((11 << 20) + 3);
    await parts.saveFile("data", nameOf(bytes), writeTemporary(bytes));
    assert.deepEqual(Buffer.from(await parts.load("data", nameOf(bytes))), bytes);
    await assert.rejects(parts.saveFile("data", "ab".repeat(32), writeTemporary(bytes)), coded("damaged", /SHA-256/));
    assert.equal(await parts.clearTemporaries(-60_000), 0, "the failed upload was aborted");

    const spot = parseS3Location(at);
    const requests = await S3Requests.open({
      place: spot,
      credentials: credentials(),
      region: null,
      addressing: "path",
    });
    for (const key of [`data/ab/${"ab".repeat(32)}`, "somebody/else's"])
      await requests.send({ method: "POST", key: `${spot.prefix}/${key}`, query: { uploads: "" }, doing: "begin" });
    requests.close();
    assert.equal(await parts.clearTemporaries(3_600_000), 0, "it may be somebody's who is still at work");
    assert.equal(await parts.clearTemporaries(-60_000), 1, "ours, and nothing that is not ours");
  },
);

test("the server refuses bytes that are not what the name says", { skip: unable }, async () => {
  const bucket = await storage();
  await assert.rejects(bucket.save("data", "ab".repeat(32), Buffer.from("x")), coded("io", /ContentSHA256Mismatch/));
  const file = writeTemporary(Buffer.from("x"));
  await assert.rejects(bucket.saveFile("data", "ab".repeat(32), file), coded("io", /ContentSHA256Mismatch/));
  assert.equal(fs.existsSync(file), true);
  assert.deepEqual(await bucket.list("data"), []);
});

test("more files than one page holds are listed", { skip: unable }, async () => {
  const bucket = await storage();
  const files = Array.from({ length: 1100 }, (_, i) => Buffer.from(String(i)));
  await Promise.all(files.map((bytes) => bucket.save("data", nameOf(bytes), bytes)));
  const listed = await bucket.list("data");
  assert.deepEqual(new Set(listed.map(({ name }) => name)), new Set(files.map(nameOf)));
});

test("wrong credentials, a missing bucket and nobody at all are told apart", { skip: unable }, async () => {
  const [secret, at] = ["AnotherSecretThatMustNotBeSeen", address()];
  const wrong = await storage({ credentials: { ...credentials(), secretAccessKey: secret } }, at);
  await assert.rejects(wrong.list("data"), coded("permission", /^(?!.*MustNotBeSeen).*SignatureDoesNotMatch/));
  const absent = await storage({}, at.replace("/cairn/", "/absent/"));
  await assert.rejects(absent.save("keys", nameOf(Buffer.from("x")), Buffer.from("x")), (error) => {
    return coded("not_found", /NoSuchBucket/)(error) && /bucket/.test((error as CairnError).hint ?? "");
  });
  const nobody = await openS3Storage(at, { env: { CAIRN_S3_ANONYMOUS: "1" } });
  open.push(nobody);
  await assert.rejects(nobody.list("data"), coded("permission", /AccessDenied/));
});
