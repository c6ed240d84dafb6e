import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { findProgram } from "../../fs/child-pipes.ts";
import { newRecord } from "./life.ts";
import { Machine } from "./machine.ts";
import { readSeed, writeSeed } from "./seed.ts";

const KEY = `ssh-ed25519 ${"A".repeat(68)} me@here`;

function folder(t: { after(work: () => void): void }): string {
  const place = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-seed-"));
  t.after(() => fs.rmSync(place, { recursive: true }));
  return place;
}

test("readSeed takes the public key beside a private one, and refuses a file without a key", (t) => {
  const place = folder(t);
  const file = path.join(place, "key");
  fs.writeFileSync(file, "-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n");
  fs.writeFileSync(`${file}.pub`, `# mine\n${KEY}\n`);
  assert.deepEqual(readSeed({ sshKeys: [file] }).sshKeys, [KEY]);
  for (const text of ["", "hello", `${KEY}\nhello`]) {
    fs.writeFileSync(`${file}.pub`, text);
    assert.throws(() => readSeed({ sshKeys: [file] }), { code: "usage", message: /no public key/ }, text);
  }
  assert.throws(() => readSeed({ userData: path.join(place, "none") }), { code: "not_found" });
});

test(
  "a seed disk always has 1 MiB, and the id of its machine",
  { skip: findProgram("xorriso") === null && "xorriso is not installed" },
  async (t) => {
    const machine = new Machine(folder(t), "my_web");
    fs.mkdirSync(machine.folder);
    const hardware = {} as Parameters<typeof newRecord>[1];
    const record = newRecord({ name: "my_web", description: "", image: "" }, hardware);
    const image = path.join(machine.folder, "seed.iso");
    const userData = Buffer.from("#!/bin/sh\n");
    await writeSeed(machine, record, { userData, sshKeys: [KEY], keyFiles: [] });
    assert.equal(fs.statSync(image).size, 1 << 20);
    const out = path.join(machine.root, "out");
    const read = ["-no_rc", "-osirrox", "on", "-indev", image, "-extract", "/", out];
    execFileSync("xorriso", read, { stdio: "ignore" });
    assert.deepEqual(JSON.parse(fs.readFileSync(path.join(out, "meta-data"), "utf8")), {
      "instance-id": record.id,
      "local-hostname": "my-web",
      "public-keys": [KEY],
    });
    assert.deepEqual(fs.readFileSync(path.join(out, "user-data")), userData);
    await assert.rejects(writeSeed(machine, record, { userData: Buffer.alloc(1 << 20), sshKeys: [], keyFiles: [] }), {
      code: "usage",
    });
    assert.deepEqual(fs.readdirSync(machine.folder), ["seed.iso"]);
  },
);
