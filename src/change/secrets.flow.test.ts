import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { existsSync } from "node:fs";
import { maySecret, SECRET_PATTERNS, suspectAt } from "../fs/secret-names.ts";
import { backupScene } from "../backup/testing-far.ts";
import { testFolder } from "../keep/testing-folder.ts";

const FILES = { "src/main.ts": "code", ".env": "TOKEN=1", ".env.example": "TOKEN=", "keys/id_ed25519": "private" };

test("every save lists the files that look like credentials, and warns only of new ones", async (t) => {
  const { client, write } = await testFolder(t, FILES);
  const warnings: string[] = [];
  const onWarning = (message: string): void => void warnings.push(message);
  const listed = [
    { path: ".env", kind: "variables with secrets" },
    { path: "keys/id_ed25519", kind: "a private key of ssh" },
  ];
  assert.deepEqual((await client.save({ onWarning })).secrets, listed);
  assert.match(warnings.join("\n"), /^2 files in the point look like credentials: \.env, keys\/id_ed25519;/m);
  warnings.length = 0;
  assert.deepEqual((await client.save({ onWarning })).secrets, listed);
  write("src/main.ts", "more");
  assert.deepEqual((await client.save({ onWarning })).secrets, listed);
  assert.deepEqual(warnings, []);
  write("server.pem", "key");
  assert.equal((await client.save({ onWarning })).secrets?.length, 3);
  assert.match(warnings.join("\n"), /^1 file in the point looks like credentials: server\.pem;/m);
});

test("a save with secrets: false leaves out files that look like credentials, and a restore keeps those files", async (t) => {
  const { client, folder, write } = await testFolder(t, FILES);
  const warnings: string[] = [];
  const onWarning = (message: string): void => void warnings.push(message);
  const point = await client.save({ secrets: false, onWarning });
  assert.deepEqual(point.secrets, []);
  assert.match(warnings.join("\n"), /^left out, because they look like credentials: /m);
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

test("suspectAt recognises credentials by the names of the file and its folder", () => {
  const looks = (path: string): boolean => suspectAt(Buffer.from(path)) !== null;
  for (const path of ["id_rsa", "a/id_rsa", ".env.local", "x/.aws/credentials", "client_secret_1.json", "a.p12"])
    assert.ok(looks(path), path);
  // Those of a folder of many names are left out, and not listed.
  for (const pattern of SECRET_PATTERNS.filter((each) => !/^!|\/.*\*.*\./.test(each))) {
    const name = Buffer.from(pattern.slice(pattern.lastIndexOf("/") + 1).replaceAll("*", "x"));
    assert.ok(maySecret(Buffer.concat([Buffer.from("a"), name]), 1, name.length), pattern);
  }
  for (const path of ["id_rsa.pub", ".env.example", "credentials", "config.json", "environment", "a.keynote", "pem"])
    assert.ok(!looks(path), path);
});

const KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n";
const SECRET_FILES: Readonly<Record<string, string>> = {
  ".npmrc": "//registry.example/:_authToken=npm_1\n",
  ".cargo/credentials.toml": "[registry]\n",
  ".vault-token": "hvs.1",
  "config/rclone.conf": "[far]\n",
  ".my.cnf": "[client]\n",
  "credentials.tfrc.json": "{}",
  "keys.txt": "# public key: age1\nAGE-SECRET-KEY-1\n",
  "my-service-account.json": '{"private_key": "-----BEGIN PRIVATE KEY-----"}',
  ".ssh/deploy_key": KEY,
  "tls/server_key": KEY,
  ".htpasswd": "ann:x",
  "terraform.tfstate": "{}",
  "infra/prod.tfstate.backup": "{}",
  "chain.pem": `-----BEGIN CERTIFICATE-----\n${"x".repeat(100_000)}\n-----BEGIN RSA PRIVATE KEY-----\n`,
  "raw.key": "0123456789abcdef",
};
/** Names of folders whose files are not listed one by one. */
const BY_FOLDER = { ".ssh/other": KEY, "tokens/forge.json": "{}" };
const PLAIN: Readonly<Record<string, string>> = {
  "a/.npmrc": "registry=https://registry.example\n",
  "cert.pem": "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n",
  "pub.pem": "-----BEGIN PUBLIC KEY-----\n",
  "talk.key": "PK\u0003\u0004 a presentation",
  "a/keys.txt": "enter, escape\n",
  "a/service-accounts.json": '{"names": []}',
  ".ssh/known_hosts": "host ssh-ed25519 x\n",
  primary_key: "id\n",
};

test("save reads a file with a suspicious name to tell whether it contains a secret", async (t) => {
  const { client, write } = await testFolder(t, { ...SECRET_FILES, ...BY_FOLDER, ...PLAIN });
  const all = await client.save();
  assert.deepEqual(all.secrets?.map(({ path }) => path).toSorted(), Object.keys(SECRET_FILES).toSorted());
  const warnings: string[] = [];
  const without = await client.save({ secrets: false, onWarning: (text) => void warnings.push(text) });
  assert.deepEqual([without.left_out, without.secrets], [[], []]);
  const kept: string[] = [];
  for await (const { path, kind } of client.walk(without.save_point_id)) if (kind === "file") kept.push(path);
  assert.deepEqual(kept.toSorted(), Object.keys(PLAIN).toSorted());
  assert.match(warnings.join("\n"), /left out, because they look like credentials: /);
  write("a/.npmrc", "_authToken=1\n");
  const { secrets } = await client.save();
  assert.ok(secrets?.some(({ path }) => path === "a/.npmrc"));
  const again = await client.save({ secrets: false, exclude: ["!cert.pem", "!raw.key"] });
  const { entries } = await client.show(again.save_point_id);
  assert.ok(
    ["raw.key", "cert.pem"].every((name) => entries.some(({ path }) => path === name)),
    "what is given decides",
  );
  assert.ok(!(await client.show(again.save_point_id, "a")).entries.some(({ path }) => path === "a/.npmrc"));
});
