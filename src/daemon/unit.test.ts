import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { installUnit, uninstallUnit, unitText } from "./unit.ts";

const SYSTEM = {
  state: "/var/lib/cairn",
  socket: "/run/cairn/cairn.sock",
  config: "/etc/cairn/config.toml",
  isSystem: true,
};

function folder(t: { after: (work: () => void) => void }): string {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-unit-"));
  t.after(() => fs.rmSync(made, { recursive: true }));
  return made;
}

test("a unit is installed and removed, with what systemd is to be told", (t) => {
  const root = folder(t);
  const { unit, commands, started } = installUnit(SYSTEM, root);
  assert.equal(unit, `${root}/etc/systemd/system/cairn.service`);
  assert.deepEqual([commands, started], [["systemctl daemon-reload", "systemctl enable --now cairn.service"], false]);
  assert.match(fs.readFileSync(unit, "utf8"), /^Type=notify$/m);
  // A minimal system has no program called kill.
  assert.match(fs.readFileSync(unit, "utf8"), /^ExecReload=.* service reload$/m);
  assert.match(fs.readFileSync(unit, "utf8"), /^RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6$/m);
  installUnit(SYSTEM, root);
  assert.deepEqual(uninstallUnit(SYSTEM, root).commands, [
    "systemctl disable --now cairn.service",
    "systemctl daemon-reload",
  ]);
  assert.equal(fs.existsSync(unit), false);
  assert.throws(() => uninstallUnit(SYSTEM, root), { code: "not_found" });
});

test("words of a unit's command line are quoted", () => {
  const text = unitText(SYSTEM, ["/opt/my node/bin/node", '/opt/100%/"a"$b\\c.js']);
  assert.ok(text.includes('ExecStart="/opt/my node/bin/node" "/opt/100%%/\\"a\\"$$b\\\\c.js" daemon\n'), text);
});

test(
  "systemd finds nothing wrong with the unit",
  {
    skip: spawnSync("systemd-analyze", ["--version"]).error === undefined ? false : "systemd-analyze is not installed",
  },
  (t) => {
    const file = path.join(folder(t), "cairn.service");
    fs.writeFileSync(file, unitText(SYSTEM, [process.execPath, "/bin/true"]));
    const done = spawnSync("systemd-analyze", ["verify", file], { encoding: "utf8" });
    assert.doesNotMatch(done.stderr, /cairn\.service:\d+/, done.stderr);
  },
);
