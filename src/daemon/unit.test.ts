import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { installedUnit, installTimer, installUnit, timerTexts, uninstallUnit, unitText } from "./unit.ts";

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

test("installUnit and uninstallUnit return the commands for systemd", (t) => {
  const root = folder(t);
  const { unit, commands, started } = installUnit(SYSTEM, root)!;
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

test("unitText quotes the words of the command line", () => {
  const text = unitText(SYSTEM, ["/opt/my node/bin/node", '/opt/100%/"a"$b\\c.js']);
  assert.ok(text.includes('ExecStart="/opt/my node/bin/node" "/opt/100%%/\\"a\\"$$b\\\\c.js" daemon\n'), text);
});

test("installTimer writes a timer with its service, and refuses if the daemon's unit is installed", (t) => {
  const root = folder(t);
  const units = `${root}/etc/systemd/system`;
  const { unit, commands } = installTimer(SYSTEM, root)!;
  assert.deepEqual(
    [unit, commands],
    [`${units}/cairn-due.timer`, ["systemctl daemon-reload", "systemctl enable --now cairn-due.timer"]],
  );
  assert.deepEqual(fs.readdirSync(units).toSorted(), ["cairn-due.service", "cairn-due.timer"]);
  assert.equal(installedUnit(SYSTEM, "timer", root), unit);
  assert.throws(() => installUnit(SYSTEM, root), { code: "refused", message: /cairn-due\.timer is installed/ });
  // A call that was killed after it removed the service is repeated.
  fs.rmSync(`${units}/cairn-due.service`);
  assert.equal(uninstallUnit(SYSTEM, root).what, "timer");
  assert.deepEqual(fs.readdirSync(units), []);
  installUnit(SYSTEM, root);
  assert.throws(() => installTimer(SYSTEM, root), { code: "refused", message: /cairn\.service is installed/ });
});

test("the timer's service has the environment variables that decide where records are", () => {
  const env = { XDG_STATE_HOME: "/st ate/$5 100%", CAIRN_SOCKET: "none", HOME: "/home/ann" };
  const [[, text]] = timerTexts(SYSTEM, ["/n", "/c"], env) as [[string, string]];
  assert.ok(text.includes('Environment="XDG_STATE_HOME=/st ate/$5 100%%"\nEnvironment="CAIRN_SOCKET=none"\n'), text);
  assert.doesNotMatch(text, /HOME=\/home/);
});

test(
  "systemd-analyze finds no error in the units",
  {
    skip: spawnSync("systemd-analyze", ["--version"]).error === undefined ? false : "systemd-analyze is not installed",
  },
  (t) => {
    const at = folder(t);
    const program = [process.execPath, "/bin/true"];
    const texts = [["cairn.service", unitText(SYSTEM, program)], ...timerTexts(SYSTEM, program, process.env)];
    const files = texts.map(([name]) => path.join(at, name!));
    for (const [i, [, text]] of texts.entries()) fs.writeFileSync(files[i]!, text!);
    const verify = (): string => spawnSync("systemd-analyze", ["verify", ...files], { encoding: "utf8" }).stderr;
    assert.doesNotMatch(verify(), /cairn[\w-]*\.(?:service|timer):\d+/);
    fs.appendFileSync(files.at(-1)!, "OnCalendar=never\n");
    assert.match(verify(), /cairn-due\.timer:\d+/);
  },
);
