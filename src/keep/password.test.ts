import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { CairnError } from "../errors.ts";
import { readPassword, type PasswordSources } from "./password.ts";

const SOURCES: PasswordSources = { variable: "PASSWORD", env: process.env, cwd: "/", question: "password" };

async function readText(sources: PasswordSources): Promise<string> {
  return Buffer.from((await readPassword(sources)).bytes).toString("utf8");
}

test("a password command gets an empty stdin", { timeout: 10_000 }, async () => {
  const command = "cat; echo pw";
  assert.equal(await readText({ ...SOURCES, command }), "pw");
  const env = { ...process.env, CAIRN_TO_PASSWORD_COMMAND: command };
  assert.equal(await readText({ ...SOURCES, env, variable: "TO_PASSWORD" }), "pw");
});

test("a failed password command is reported with its exit status or signal", async () => {
  const told = async (command: string, how: RegExp): Promise<void> => {
    await assert.rejects(
      readPassword({ ...SOURCES, command }),
      (error) => error instanceof CairnError && error.code === "usage" && how.test(error.message),
    );
  };
  await told("exit 3", /password command ended with status 3$/);
  await told("kill -KILL $$", /password command was ended by SIGKILL$/);
});

test("a password file that is a folder, a pipe or empty is a usage error", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "cairn-password-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const empty = join(folder, "empty");
  writeFileSync(empty, " \n");
  const pipe = join(folder, "pipe");
  assert.equal(spawnSync("mkfifo", [pipe]).status, 0);
  const hint = /^use --password-file FILE, or the variable/;
  const asks: [Partial<PasswordSources>, RegExp][] = [
    [{ file: folder }, /the password file .* is a folder; a regular file is wanted$/],
    [{ env: { CAIRN_PASSWORD_FILE: folder } }, /the password file .* is a folder; a regular file is wanted$/],
    [{ file: pipe }, /the password file .* is a pipe, socket or device; a regular file is wanted$/],
    [{ file: empty }, /the password from .*empty is empty$/],
    [{ command: "true" }, /the password from the command is empty$/],
  ];
  for (const [from, message] of asks)
    await assert.rejects(readPassword({ ...SOURCES, ...from }), { code: "usage", message, hint });
});

test("a password file may be a symbolic link or /dev/fd of a shell's `<(command)`", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "cairn-password-"));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, "file"), "a secret\n");
  symlinkSync("file", join(folder, "link"));
  const descriptor = openSync(join(folder, "file"), "r");
  t.after(() => closeSync(descriptor));
  for (const file of [join(folder, "link"), `/dev/fd/${descriptor}`])
    assert.equal(await readText({ ...SOURCES, file }), "a secret", file);
});

test("the error for a missing password names the options and variables of that password", async () => {
  const told = async (variable: string, question: string): Promise<string[]> => {
    const error = await readPassword({ ...SOURCES, env: {}, variable, question }).catch((thrown: unknown) => thrown);
    assert.ok(error instanceof CairnError && error.code === "usage");
    return [error.message, error.hint!];
  };
  assert.deepEqual(await told("TO_PASSWORD", "password of /mnt/usb"), [
    "the password of /mnt/usb is needed, and there is no terminal to ask for it",
    "use --to-password-file FILE, or the variable CAIRN_TO_PASSWORD, CAIRN_TO_PASSWORD_FILE or CAIRN_TO_PASSWORD_COMMAND",
  ]);
  assert.match(
    (await told("NEW_PASSWORD", "new password")).join("\n"),
    /^the new password is.*\nuse --new-password-file/,
  );
});
