import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import {
  backup,
  filesOf,
  newRepository,
  noRestic,
  restic,
  type TestRepository,
  tryBackup,
} from "../fixtures/repository.ts";
import { cairn } from "../fixtures/command.ts";
import { killAt } from "../crash/rounds.ts";

/** Passwords that the program `age` and we encrypt for each other. */

const noAge = spawnSync("age", ["--version"]).error === undefined ? false : "age is not installed";

function age(input: string, program: "age" | "age-keygen", ...args: string[]): string {
  const child = spawnSync(program, args, { input, encoding: "utf8" });
  assert.equal(child.status, 0, child.stderr);
  return child.stdout;
}

/** A new identity in a file, and its recipient. */
function newIdentity(place: TestRepository, name: string): { file: string; recipient: string } {
  const file = `${place.location}.${name}`;
  fs.writeFileSync(file, age("", "age-keygen"));
  return { file, recipient: age("", "age-keygen", "-y", file).trim() };
}

function opening(place: TestRepository, file: string, identity: string): TestRepository {
  return { ...place, options: ["-r", place.location, "--password-file", file, "--age-identity", identity] };
}

test(
  "each recipient of an age-encrypted key can open the repository with Cairn, and with age and restic",
  { skip: noAge },
  async () => {
    const place = await newRepository("age");
    const [alice, bob] = [newIdentity(place, "alice"), newIdentity(place, "bob")];
    const file = `${place.location}.age`;
    const args = ["--age-recipient", alice.recipient, "--age-recipient", bob.recipient, "--to", file];
    const { keys } = backup(place, "key", "add", ...args).data as { keys: { key_id: string; current: boolean }[] };
    assert.equal(keys.length, 2);
    assert.equal(fs.statSync(file).mode & 0o777, 0o600);
    for (const { file: identity } of [alice, bob]) {
      backup(opening(place, file, identity), "list");
      const passwordFile = `${file}.plain`;
      fs.writeFileSync(passwordFile, age("", "age", "-d", "-i", identity, file));
      if (noRestic === false) restic({ ...place, passwordFile }, "check");
    }
    const env = { CAIRN_PASSWORD_FILE: file, CAIRN_AGE_IDENTITY: bob.file };
    assert.equal(cairn(["backup", "list", "-r", place.location], { env }).status, 0);
    const other = newIdentity(place, "other");
    const refused = tryBackup(opening(place, file, other.file), "list");
    assert.deepEqual([refused.status, refused.error?.code], [9, "wrong_password"]);
    const unsaid = cairn(["backup", "list", "-r", place.location, "--password-file", file]);
    assert.match(`${unsaid.status} ${unsaid.error?.hint}`, /2 .*--age-identity/);
    assert.equal(tryBackup(opening(place, file, `${file}.none`), "list").status, 3);
    // What is there is never written over, and gets no second key.
    const again = tryBackup(place, "key", "add", ...args);
    assert.deepEqual([again.status, again.error?.code], [4, "already_exists"]);
    assert.ok(again.error?.hint?.includes(`backup list --password-file ${file}`), again.error?.hint ?? "");
    assert.equal(filesOf(place, "keys").length, 2);
    backup(place, "key", "remove", keys.find(({ current }) => !current)!.key_id);
    assert.equal(tryBackup(opening(place, file, alice.file), "list").status, 9);
  },
);

test("an age-encrypted password file opens a repository, and can make a new one", { skip: noAge }, async () => {
  const place = await newRepository("by-age");
  const { file: identity, recipient } = newIdentity(place, "identity");
  const password = fs.readFileSync(place.passwordFile, "utf8");
  for (const armor of [[], ["-a"]]) {
    const file = `${place.location}.encrypted${armor.length}`;
    age(password, "age", ...armor, "-r", recipient, "-o", file);
    backup(opening(place, file, identity), "list");
    const made = opening({ ...place, location: `${place.location}-made${armor.length}` }, file, identity);
    backup(made, "init");
    backup({ ...made, options: ["-r", made.location, "--password-file", place.passwordFile] }, "list");
  }
});

test(
  "key add for age recipients, if killed before it writes the key, leaves a file that opens nothing",
  { skip: noAge },
  async () => {
    const place = await newRepository("age-killed");
    const { file: identity, recipient } = newIdentity(place, "identity");
    const file = `${place.location}.age`;
    const words = (output: string): string[] => ["key", "add", "--age-recipient", recipient, "--to", output];
    const args = ["backup", ...words(file), ...place.options];
    let pass = 1;
    const beside = fs.readdirSync(path.dirname(file));
    while (killAt(args, pass) !== "age-key.file-written") {
      assert.deepEqual(fs.readdirSync(path.dirname(file)), beside);
      fs.rmSync(file, { force: true });
      pass++;
    }
    assert.equal(fs.readdirSync(path.dirname(file)).length, beside.length + 1);
    assert.equal(tryBackup(opening(place, file, identity), "list").status, 9);
    const [, ...rest] = words(`${file}.second`);
    backup(place, "key", ...rest);
    backup(opening(place, `${file}.second`, identity), "list");
    assert.deepEqual([filesOf(place, "keys").length, filesOf(place, "locks")], [2, []]);
  },
);
