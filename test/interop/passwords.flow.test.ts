import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { test } from "node:test";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { backup, noRestic, repositoryPlace, restic, type TestRepository, tryBackup } from "../fixtures/repository.ts";

/** Passwords that are not UTF-8: as of `head -c 32 /dev/urandom`, or of an old terminal. */

const BYTES = Buffer.from([0xfe, 0x80, 0x41, 0xe4, 0xc3, 0x28, 0x99]);
/** As text the same. */
const OTHER = Buffer.from([0xff, 0x81, 0x41, 0xe5, 0xc3, 0x28, 0x9a]);
const noAge = spawnSync("age", ["--version"]).error === undefined ? false : "age is not installed";

function placeWith(name: string, password: Uint8Array): TestRepository {
  const place = repositoryPlace(name);
  fs.writeFileSync(place.passwordFile, password);
  return place;
}

/** The same repository by another password. */
function by(place: TestRepository, password: Uint8Array, name: string): TestRepository {
  const passwordFile = `${place.location}.${name}`;
  fs.writeFileSync(passwordFile, password);
  return { ...place, passwordFile, options: ["-r", place.location, "--password-file", passwordFile] };
}

test("Cairn and restic open each other's repositories with a password that is not UTF-8", { skip: noRestic }, () => {
  const ours = placeWith("bytes", Buffer.concat([BYTES, Buffer.from(" \n")]));
  backup(ours, "init");
  restic(ours, "snapshots");
  assert.equal(tryBackup(by(ours, OTHER, "other"), "list").error?.code, "wrong_password");

  const theirs = placeWith("bytes-of-restic", Buffer.from("gehe\xefm-p\xe4ss\n", "latin1"));
  restic(theirs, "init");
  const { location, passwordFile } = theirs;
  assert.deepEqual(backup(theirs, "list").warnings, []);
  cairnOk(["backup", "list", "-r", location, "--password-command", `cat ${passwordFile}`]);
  for (const name of ["CAIRN_PASSWORD", "RESTIC_PASSWORD"]) {
    const prefix = ["/bin/sh", "-c", `${name}="$(cat ${passwordFile})" exec "$@"`, "sh"];
    cairnOk(["backup", "list", "-r", location], { prefix, own: true });
  }

  const changed = by(theirs, BYTES, "changed");
  backup(theirs, "key", "passwd", "--new-password-file", changed.passwordFile);
  restic(changed, "snapshots");
  const env = { CAIRN_NEW_PASSWORD_COMMAND: `cat ${ours.passwordFile.replace(ours.location, location)}` };
  cairnOk(["backup", "key", ...changed.options, "add"], { env });
  restic(theirs, "snapshots");
});

test("a password that is not UTF-8 keeps its bytes in an age-encrypted file", { skip: noAge }, () => {
  const place = placeWith("bytes-by-age", BYTES);
  backup(place, "init");
  const [identity, encrypted] = [`${place.location}.identity`, `${place.location}.age`];
  const age = (program: string, ...args: string[]): string => {
    const child = spawnSync(program, args, { encoding: "utf8" });
    assert.equal(child.status, 0, child.stderr);
    return child.stdout;
  };
  fs.writeFileSync(identity, age("age-keygen"));
  const recipient = age("age-keygen", "-y", identity).trim();
  const opened = (password: string): ReturnType<typeof cairn> => {
    age("age", "-r", recipient, "-o", encrypted, password);
    return cairn(["backup", "list", "-r", place.location, "--password-file", encrypted, "--age-identity", identity]);
  };
  assert.equal(opened(place.passwordFile).status, 0);
  assert.equal(opened(by(place, OTHER, "other").passwordFile).error?.code, "wrong_password");
});

test("a repository made with the altered password of earlier versions opens with a warning until key passwd", () => {
  const place = placeWith("former", BYTES);
  // As an earlier version made it.
  const former = by(place, Buffer.from(BYTES.toString("utf8")), "former");
  backup(former, "init");
  const file = place.passwordFile;
  const warned = /opens it only in the altered form that earlier versions .* `cairn backup key passwd`/;
  const ways: [string[], Parameters<typeof cairn>[1]][] = [
    [["--password-file", file], {}],
    [["--password-command", `cat ${file}`], {}],
    [[], { prefix: ["/bin/sh", "-c", `CAIRN_PASSWORD="$(cat ${file})" exec "$@"`, "sh"], own: true }],
  ];
  for (const [options, how] of ways) {
    const { warnings } = cairnOk(["backup", "list", "-r", place.location, ...options], how);
    assert.match(warnings.join("\n"), warned);
  }
  const into = ["--to", place.location, "--to-password-file", file];
  assert.match(tryBackup(former, "copy", ...into).warnings.join("\n"), warned);

  assert.match(backup(place, "key", "passwd", "--new-password-file", file).warnings.join("\n"), warned);
  assert.deepEqual(backup(place, "list").warnings, []);
  assert.equal(tryBackup(former, "list").error?.code, "wrong_password");
  assert.equal(tryBackup(by(place, OTHER, "other"), "list").error?.code, "wrong_password");
});

test("inspect reads the bytes of a password file unchanged", () => {
  const place = placeWith("inspected", BYTES);
  backup(place, "init");
  const look = (file: string): ReturnType<typeof cairn> =>
    cairn(["inspect", `${place.location}/config`, "--password-file", file]);
  assert.equal(look(place.passwordFile).status, 0);
  assert.equal(look(by(place, OTHER, "other").passwordFile).error?.code, "wrong_password");
});
