import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { existsSync } from "node:fs";
import { maySecret, SECRET_PATTERNS, secretKind } from "../fs/secret-names.ts";
import { backupScene } from "../backup/testing-far.ts";
import { testFolder } from "./testing-folder.ts";

const FILES = { "src/main.ts": "code", ".env": "TOKEN=1", ".env.example": "TOKEN=", "keys/id_ed25519": "private" };

test("a save lists the files that look like credentials, each time, and names those that are new", async (t) => {
  const { client, write } = await testFolder(t, FILES);
  const warnings: string[] = [];
  const onWarning = (message: string): void => void warnings.push(message);
  const listed = [
    { path: ".env", kind: "variables with secrets" },
    { path: "keys/id_ed25519", kind: "a private key of ssh" },
  ];
  assert.deepEqual((await client.save({ onWarning })).secrets, listed);
  assert.match(warnings.join("\n"), /^2 files in it look like credentials: \.env, keys\/id_ed25519;/m);
  warnings.length = 0;
  assert.deepEqual((await client.save({ onWarning })).secrets, listed);
  write("src/main.ts", "more");
  assert.deepEqual((await client.save({ onWarning })).secrets, listed);
  assert.deepEqual(warnings, []);
  write("server.pem", "key");
  assert.equal((await client.save({ onWarning })).secrets?.length, 3);
  assert.match(warnings.join("\n"), /^1 file in it looks like credentials: server\.pem;/m);
});

test("a save without secrets leaves them out and says so, and a restore lets them stay", async (t) => {
  const { client, folder, write } = await testFolder(t, FILES);
  const warnings: string[] = [];
  const onWarning = (message: string): void => void warnings.push(message);
  const point = await client.save({ secrets: false, onWarning });
  assert.deepEqual(point.secrets, []);
  assert.match(warnings.join("\n"), /^left out, as they look like credentials: /m);
  for (const path of [".env", "keys/id_ed25519"]) assert.ok(warnings.join("\n").includes(path), path);
  assert.deepEqual(
    (await client.show(point.save_point_id)).entries.map(({ path }) => path),
    [".env.example", "keys", "src"],
  );
  write("src/main.ts", "other");
  await client.restore({ target: point.save_point_id });
  assert.deepEqual(
    [".env", "keys/id_ed25519"].map((path) => existsSync(join(folder, path))),
    [true, true],
  );
});

test("a backup lists the files that look like credentials", async (t) => {
  const { client, repository, write } = await backupScene(t, "local");
  write(".netrc", "machine");
  const wanted = [{ path: ".netrc", kind: "a password store" }];
  const { secrets, save_point_id: point } = await client.createBackup(repository);
  assert.deepEqual(secrets, wanted);
  assert.deepEqual((await client.createBackup(repository, { point })).secrets, wanted);
});

test("a file looks like credentials by its name and the folder that it lies in", () => {
  const looks = (path: string): boolean => secretKind(Buffer.from(path)) !== null;
  for (const path of ["id_rsa", "a/id_rsa", ".env.local", "x/.aws/credentials", "client_secret_1.json", "a.p12"])
    assert.ok(looks(path), path);
  for (const pattern of SECRET_PATTERNS.filter((each) => !each.startsWith("!"))) {
    const name = Buffer.from(pattern.slice(pattern.lastIndexOf("/") + 1).replaceAll("*", "x"));
    assert.ok(maySecret(Buffer.concat([Buffer.from("a"), name]), 1, name.length), pattern);
  }
  for (const path of ["id_rsa.pub", ".env.example", "credentials", "config.json", "environment", "a.keynote", "pem"])
    assert.ok(!looks(path), path);
});
