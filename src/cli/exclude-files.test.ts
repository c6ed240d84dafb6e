import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { argsOf } from "./testing-fake-library.ts";
import { runFake, runJson } from "./testing-run.ts";

function fileOf(t: TestContext, content: string | Buffer): string {
  const root = mkdtempSync(join(tmpdir(), "cairn-excludes-"));
  t.after(() => rmSync(root, { recursive: true }));
  writeFileSync(join(root, "list"), content);
  return join(root, "list");
}

test("patterns of --exclude-file come before those of --exclude, without comments and blank lines", async (t) => {
  const file = fileOf(t, "\uFEFF# caches\r\n*.o\r\n\n  \n!keep.o\na b\\ \n\\#x\n$RECYCLE.BIN/\n*.$$$\n");
  const wanted = ["*.o", "!keep.o", "a b\\ ", "\\#x", "$RECYCLE.BIN/", "*.$$$", "last"];
  const words = ["--exclude", "last", "--exclude-file", file];
  const saved = await runFake(["save", ...words]);
  assert.deepEqual((argsOf(saved.fake, "save")[0] as { exclude: string[] }).exclude, wanted);
  const sent = await runFake(["backup", "create", "-r", "x", ...words]);
  assert.deepEqual((argsOf(sent.fake, "createBackup")[1] as { exclude: string[] }).exclude, wanted);
  for (const what of [["--no-save"], ["head"]])
    assert.equal((await runFake(["backup", "create", "-r", "x", ...what, "--exclude-file", file])).status, 2);
});

test("a known variable at the start of a pattern is expanded, and an unknown one is a usage error", async (t) => {
  const file = fileOf(t, "$HOME/.cache\n!${HOME}/.cache/kept/\n$HOME\n");
  const { fake } = await runFake(["save", "--exclude-file", file], { env: { HOME: "/home/me/" } });
  assert.deepEqual((argsOf(fake, "save")[0] as { exclude: string[] }).exclude, [
    "/home/me/.cache",
    "!/home/me/.cache/kept/",
    "/home/me",
  ]);
  for (const env of [{ HOME: undefined }, { HOME: "" }, { HOME: "me" }]) {
    const { status, envelope, fake: asked } = await runJson(["save", "--exclude-file", file], { env });
    assert.deepEqual([status, envelope.error?.code], [2, "usage"]);
    assert.deepEqual(asked.asked, []);
  }
});

test("save does nothing if a file of patterns is missing, not text or too large", async (t) => {
  for (const [file, code] of [
    ["/nowhere/list", "not_found"],
    ["/", "usage"],
    [fileOf(t, Buffer.from([0x61, 0xff, 0x0a])), "usage"],
    [fileOf(t, Buffer.alloc((1 << 20) + 1, "a")), "usage"],
  ] as const) {
    const { envelope, fake } = await runJson(["save", "--exclude-file", file]);
    assert.equal(envelope.error?.code, code, file);
    assert.deepEqual(fake.asked, []);
  }
});

test("a file with lines for borg's --patterns-from is refused", async (t) => {
  for (const line of ["- home/*/.cache", "+ home/me", "! re:x", "R /home", "P sh"]) {
    const { envelope, fake } = await runJson(["save", "--exclude-file", fileOf(t, `a\n${line}\n`)]);
    assert.equal(envelope.error?.code, "usage", line);
    assert.deepEqual(fake.asked, []);
  }
  const names = ["-rf", "+x", "!x", "\\- x", "R", "P x"];
  const { fake } = await runFake(["save", "--exclude-file", fileOf(t, names.join("\n"))]);
  assert.deepEqual((argsOf(fake, "save")[0] as { exclude: string[] }).exclude, names);
});
