import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { argsOf } from "./testing-fake-library.ts";
import { runJson } from "./testing-run.ts";

/** Node gives arguments and the current folder as text, in which bytes that are not UTF-8 are this character. */
const LOST = "lost\uFFFD";

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "cairn-lost-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, "password"), "x\n");
  return folder;
}

const env = { CAIRN_PASSWORD: "x" };

test("a path argument that is not UTF-8 is a usage error, and no file of another name is made", async (t) => {
  const cwd = folderOf(t);
  for (const line of [
    ["backup", "init", "-r", LOST],
    ["backup", "init", "-r", `local:${LOST}/in`],
    ["backup", "init", "-r", `sftp:host:/srv/${LOST}`],
    ["backup", "list", "-r", LOST],
    ["backup", "list", "-r", "r", "--password-file", LOST],
    ["backup", "copy", "-r", "r", "--to", LOST],
    ["backup", "copy", "-r", "r", "--to", "s", "--to-password-file", LOST],
    ["backup", "restore", "latest", "-r", "r", "--to", LOST],
    ["backup", "restore", "latest", "-r", "r", "--to", "to", "--receipt", LOST],
    ["backup", "verify", "-r", "r", "--restore-check", "--scratch", LOST],
    ["backup", "key", "add", "-r", "r", "--new-password-file", LOST],
    ["restore", "head", "--to", LOST],
    ["fork", "head", LOST],
  ]) {
    const { status, envelope } = await runJson(line, { cwd, env });
    assert.deepEqual([status, envelope.error?.code], [2, "usage"], line.join(" "));
    assert.match(
      envelope.error!.message,
      /^the name lost\uFFFD|^(?:the name )?(?:local|sftp):.*lost\uFFFD.* is not UTF-8/,
      line.join(" "),
    );
  }
  assert.equal(existsSync(join(cwd, LOST)), false);
});

test("a relative path is refused if the current folder's name is not UTF-8", async (t) => {
  const folder = folderOf(t);
  const cwd = join(folder, LOST);
  const refused = await runJson(["backup", "init", "-r", "r"], { cwd, env });
  assert.deepEqual([refused.status, refused.envelope.error?.code], [2, "usage"]);
  assert.match(refused.envelope.error!.message, /^the name of the current folder, .*, is not UTF-8/);
  const made = await runJson(["backup", "init", "-r", join(folder, "r")], { cwd, env });
  assert.equal(made.status, 0);
});

test("a path with a replacement character is accepted if an entry has exactly that name", async (t) => {
  const cwd = folderOf(t);
  mkdirSync(join(cwd, LOST));
  const { status, fake } = await runJson(["backup", "list", "-r", `${LOST}/r`], { cwd, env });
  assert.equal(status, 0);
  assert.equal((argsOf(fake, "openRepository")[0] as { repository: string }).repository, join(cwd, LOST, "r"));
});
