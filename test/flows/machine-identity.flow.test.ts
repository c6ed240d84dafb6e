import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { after, before, suite, test } from "node:test";
import { buildCommand, cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { bootedBy, endMachines, findGuest, Guest, MACHINES, served, vm } from "../fixtures/guest.ts";

/** What a guest that goes on from a saved state has for itself, and commands and files through its serial port. */

const files = findGuest("service");
const plain = findGuest();
const missing = spawnSync("sh", ["-c", "command -v xorriso"]).status !== 0;
const skip = "reason" in files ? files.reason : missing && "xorriso is not installed";

interface Identity {
  confirmed: string[];
  shared: string[];
  clock_behind_ms: number | null;
}
const ALL = ["clock", "entropy", "host_name", "machine_id", "ssh_host_keys", "dhcp"];

/** Runs a command in a guest, as a user does. */
function inside(
  name: string,
  command: string,
  input: string | Buffer = "",
): { status: number | null; out: string; err: string } {
  const line = [buildCommand(), "vm", "exec", "--lock-timeout", "2m", name, "--", "sh", "-c", command];
  const { status, stdout, stderr } = spawnSync(process.execPath, line, { input, maxBuffer: 64 << 20 });
  return { status, out: stdout.toString("latin1"), err: stderr.toString("latin1") };
}

/** What must differ between two guests. */
function facts(name: string): { machine: string; host: string; keys: string; drawn: string; off: number } {
  const command =
    "cat /etc/machine-id; hostname; md5sum </etc/dropbear/dropbear_ed25519_host_key; head -c 32 /dev/urandom | md5sum; date +%s";
  const [machine, host, keys, drawn, seconds] = inside(name, command).out.split("\n") as [
    string,
    string,
    string,
    string,
    string,
  ];
  return { machine, host, keys, drawn, off: Math.abs(Number(seconds) - Date.now() / 1000) };
}

const identityOf = (result: Record<string, unknown>): Identity => result["identity"] as Identity;

suite("the identity of a machine", { skip }, () => {
  before(async () => {
    if ("reason" in files) return;
    vm("run", "web", ...bootedBy(files), "--disk", "1M");
    await served("web");
    const prepare = [
      "dropbearkey -t ed25519 -f /etc/dropbear/dropbear_ed25519_host_key",
      "mkdir -p /var/lib/dhcp && echo old >/var/lib/dhcp/dhclient.leases",
      "echo 0123456789abcdef0123456789abcdef >/etc/machine-id",
      "date -s '2020-01-01 00:00:00'",
    ];
    assert.equal(inside("web", prepare.join(" && ")).status, 0);
    vm("save", "web");
  });
  after(() => endMachines());

  test("vm exec passes streams and the exit status, and a second one waits for its turn", async () => {
    assert.deepEqual(inside("web", "cat; echo error >&2; exit 7", "input"), {
      status: 7,
      out: "input",
      err: "error\n",
    });
    assert.equal(inside("web", "exit 0", randomBytes(3 << 20)).status, 0, "nobody reads the input");
    assert.equal(inside("web", "kill -9 $$").status, 137);
    assert.deepEqual(inside("web", "exec not-there").status, 127);
    const absent = cairn(["vm", "exec", "--json", "web", "--", "not-there"]);
    assert.equal(absent.status, 127, absent.error?.message);
    const bytes = randomBytes(1 << 20);
    const { out } = inside("web", "sha256sum", bytes);
    assert.ok(out.startsWith(createHash("sha256").update(bytes).digest("hex")));
    // A command with a background process ends, and one whose caller is killed does not go on.
    assert.equal(inside("web", "sleep 1000 & echo started").out, "started\n");
    const child = spawn(process.execPath, [
      buildCommand(),
      "vm",
      "exec",
      "web",
      "--",
      "sh",
      "-c",
      "echo begun; sleep 999",
    ]);
    await new Promise((resolve) => child.stdout.once("data", resolve));
    assert.equal(cairn(["vm", "exec", "--lock-timeout", "0s", "web", "true"]).error?.code, "busy");
    child.kill("SIGKILL");
    await eventually("the command ends", () => inside("web", "ps | grep '[s]leep 999'").status === 1);
  });

  test("vm exec fails if the guest's service starts again meanwhile, and the next one works", () => {
    const again = `setsid sh -c "kill -9 $PPID; exec python3 -I /usr/local/lib/cairn/guest.py" </dev/null >/dev/null 2>&1 &`;
    const { status, err } = inside("web", `${again} sleep 998`);
    assert.equal(status, 1, err);
    assert.match(err, /started again/);
    assert.equal(inside("web", "true").status, 0);
  });

  test("vm cp copies files in both directions, and leaves nothing half", () => {
    const bytes = randomBytes((1 << 20) + 7);
    const file = path.join(SCRATCH, "to-copy");
    fs.writeFileSync(file, bytes, { mode: 0o750 });
    vm("cp", file, "web:/root/copied");
    const [mode, digest] = inside("web", "stat -c %a /root/copied; sha256sum </root/copied").out.split("\n");
    assert.equal(mode, "750");
    assert.ok(digest!.startsWith(createHash("sha256").update(bytes).digest("hex")));
    const back = path.join(SCRATCH, "back");
    fs.mkdirSync(back);
    const to = path.join(back, "copied");
    assert.ok(cairn(["vm", "cp", "web:/root/copied", to], { failpoint: "vm-cp.written" }).killed);
    vm("cp", "web:/root/copied", to);
    assert.deepEqual(fs.readdirSync(back), ["copied"]);
    assert.deepEqual(fs.readFileSync(to), bytes);
    for (const [from, where, code] of [
      ["web:/root", to, "io"],
      ["web:/none", to, "io"],
      [file, "web:/root", "io"],
      [file, "web:/none/file", "io"],
      [SCRATCH, "web:/root/x", "usage"],
      [file, to, "usage"],
      ["web:/a", "web:/b", "usage"],
      ["web:relative", to, "usage"],
    ] as const)
      assert.equal(cairn(["vm", "cp", from, where]).error?.code, code, `${from} ${where}`);
    assert.equal(inside("web", "ls -A / /root | grep -c part").out, "0\n");
    // Python keeps the last bytes of a file until it is flushed.
    assert.equal(inside("web", "mkdir /small && mount -t tmpfs -o size=4k small /small").status, 0);
    for (const size of [6000, 20_000, 100_000]) {
      fs.writeFileSync(file, randomBytes(size));
      assert.equal(cairn(["vm", "cp", file, "web:/small/file"]).error?.code, "io", `${size}`);
      assert.equal(inside("web", "ls -A /small").out, "", `${size}`);
    }
    vm("cp", "web:/root/copied", back);
    assert.deepEqual(fs.readdirSync(back), ["copied"]);
  });

  test("a clone has its own identity, and a restore has the time and new random numbers", () => {
    const of = ["web-2", "web-3"].map((name) => identityOf(vm("clone", "web", name)));
    for (const { confirmed, shared, clock_behind_ms: behind } of of) {
      assert.deepEqual([confirmed, shared], [ALL, []]);
      assert.ok(behind! > 3e10, String(behind));
    }
    const all = ["web-2", "web-3"].map(facts);
    for (const key of ["machine", "keys", "drawn"] as const) assert.notEqual(all[0]![key], all[1]![key], key);
    assert.deepEqual(
      all.map(({ host }) => host),
      ["web-2", "web-3"],
    );
    assert.deepEqual(
      all.map(({ machine }) => machine),
      ["web-2", "web-3"].map((name) => vm("inspect", name)["id"]),
    );
    for (const { off } of all) assert.ok(off <= 3, String(off));
    assert.notEqual(inside("web-2", "cat /var/lib/dhcp/dhclient.leases").status, 0);

    const before = identityOf(vm("restore", "web", "latest"));
    assert.deepEqual(before.confirmed, ["clock", "entropy"]);
    const { machine, off } = facts("web");
    assert.equal(machine, "0123456789abcdef0123456789abcdef");
    assert.ok(off <= 3, String(off));
    assert.deepEqual(identityOf(vm("restore", "web", "latest", "--new-identity")).confirmed, ALL);
    assert.equal(facts("web").machine, vm("inspect", "web")["id"]);
    vm("rm", "web-3", "--force");
  });

  test("a killed clone is told by the next command what its guest is", async () => {
    for (const at of ["vm-go-on.runs", "vm-identity.begun", "vm-identity.answered", "vm-identity.linked"]) {
      const name = `killed-${at.slice(3).replace(".", "-")}`;
      assert.ok(cairn(["vm", "clone", "web", name], { failpoint: at }).killed, at);
      const record = path.join(MACHINES, name, "machine.json");
      // The process beside the command tells the guest, or the next command does.
      const { machine, off } = facts(name);
      assert.equal(machine, vm("inspect", name)["id"], at);
      assert.ok(off <= 3, `${at}: ${off}`);
      assert.equal((JSON.parse(fs.readFileSync(record, "utf8")) as { identity: unknown }).identity, null);
      await eventually("its link is up", () => inside(name, "cat /sys/class/net/eth*/carrier").out.includes("1"));
      vm("rm", name, "--force");
    }
  });

  test("a hibernated guest has the time when it goes on", () => {
    vm("hibernate", "web-2");
    assert.deepEqual(cairnOk(["vm", "start", "web-2"]).warnings, []);
    assert.ok(facts("web-2").off <= 3);
    vm("rm", "web-2", "--force", "--delete-points");
  });

  test("a guest without the service costs no wait, and the answer names what it shares", async () => {
    if ("reason" in plain) return;
    vm("run", "plain", ...bootedBy(plain), "--disk", "1M");
    await new Guest("plain").counted(2);
    vm("save", "plain");
    const started = performance.now();
    const { data, warnings } = cairnOk(["vm", "clone", "plain", "plain-2"]);
    const { ready_ms: ready, duration_ms: lasted } = data as { ready_ms: number; duration_ms: number };
    assert.ok(lasted - ready < 10_000, `${lasted - ready} ms of ${performance.now() - started}`);
    assert.deepEqual(
      identityOf(data).shared,
      ALL.filter((item) => item !== "entropy"),
    );
    assert.match(warnings.join(), /machine id, SSH host keys, DHCP identifiers; and random number generators inside/);
    for (const line of [
      ["exec", "plain", "true"],
      ["cp", "/etc/hostname", "plain:/x"],
    ])
      assert.match(cairn(["vm", ...line]).error?.message ?? "", /no service of Cairn/);
    vm("stop", "plain", "--force");
    assert.match(cairn(["vm", "exec", "plain", "true"]).error?.message ?? "", /is not running/);
  });
});
