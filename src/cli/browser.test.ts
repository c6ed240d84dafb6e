import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { hasDisplay, openInBrowser, pagesFolder } from "./browser.ts";

const ADDRESS = "http://127.0.0.1:7000/#code=AAAAAAAAAAAAAAAAAAAAAA";

test("hasDisplay is true with a display, and false over SSH", () => {
  assert.equal(hasDisplay({}), false);
  assert.equal(hasDisplay({ DISPLAY: "" }), false);
  assert.equal(hasDisplay({ DISPLAY: ":0" }), true);
  assert.equal(hasDisplay({ WAYLAND_DISPLAY: "wayland-0" }), true);
  assert.equal(hasDisplay({ DISPLAY: ":10", SSH_CONNECTION: "10.0.0.1 1 10.0.0.2 22" }), false);
});

test("openInBrowser opens a private file, and removes old files of killed commands", async (t) => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-open-"));
  t.after(() => fs.rmSync(root, { recursive: true }));
  const seen = path.join(root, "seen");
  fs.writeFileSync(
    path.join(root, "xdg-open"),
    `#!/bin/sh\necho "$#" "$1" > ${seen}.part; tr '\\0' ' ' < /proc/$$/cmdline >> ${seen}.part; mv ${seen}.part ${seen}\n`,
    { mode: 0o755 },
  );
  const env = { PATH: `${root}:${process.env["PATH"]}`, XDG_RUNTIME_DIR: root };
  const folder = pagesFolder(env);
  fs.mkdirSync(folder, { recursive: true, mode: 0o755 });
  const write = (name: string, ageMs: number): void => {
    fs.writeFileSync(path.join(folder, name), "");
    const at = (Date.now() - ageMs) / 1000;
    fs.utimesSync(path.join(folder, name), at, at);
  };
  // No process has such a number.
  write(`open-${2 ** 30}-aaaa.html`, 0);
  write(`open-${process.ppid}-old.html`, 20_000);
  write(`open-${process.ppid}-new.html`, 0);
  write("else.html", 20_000);
  const watched = new Promise<void>((done) => {
    const watcher = fs.watch(root, (_change, name) => name === "seen" && (watcher.close(), done()));
  });
  const opened = openInBrowser(ADDRESS, { env, lifeMs: 10_000, onProblem: (message) => assert.fail(message) });
  await watched;
  assert.equal(fs.statSync(folder).mode & 0o777, 0o700);
  const names = fs.readdirSync(folder).toSorted();
  const own = names.find((name) => name.startsWith(`open-${process.pid}-`))!;
  assert.deepEqual(names, ["else.html", `open-${process.ppid}-new.html`, own].toSorted());
  const file = path.join(folder, own);
  assert.equal(fs.statSync(file).mode & 0o777, 0o600);
  assert.ok(fs.readFileSync(file, "utf8").includes(`url=${ADDRESS}"`));
  const arguments_ = fs.readFileSync(seen, "utf8");
  assert.ok(arguments_.startsWith(`1 ${file}\n`) && !arguments_.includes("code="), arguments_);
  opened.remove();
  opened.remove();
  assert.equal(fs.existsSync(file), false);
});

test("openInBrowser reports a browser that cannot be opened", async (t) => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-open-"));
  t.after(() => fs.rmSync(root, { recursive: true }));
  const told = Promise.withResolvers<string>();
  const env = { PATH: root, XDG_RUNTIME_DIR: root };
  openInBrowser(ADDRESS, { env, lifeMs: 10_000, onProblem: told.resolve }).remove();
  assert.match(await told.promise, /open the address yourself/);
});
