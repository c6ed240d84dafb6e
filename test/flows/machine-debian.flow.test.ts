import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, before, suite, test } from "node:test";
import { buildCommand, cairn, cairnOk, ROOT, SCRATCH } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { endMachines, Guest } from "../fixtures/guest.ts";
import { LONG } from "../fixtures/long.ts";

/** A machine from a real Debian root with systemd, cloud-init and OpenSSH, by the commands of docs/machines.md alone. */

const PROGRAMS = {
  mmdebstrap: "mmdebstrap",
  "mkfs.ext4": "e2fsprogs",
  "qemu-system-x86_64": "qemu-system-x86",
  "qemu-img": "qemu-utils",
  xorriso: "xorriso",
  ssh: "openssh-client",
};
const PACKAGES = "systemd-sysv,udev,dbus,cloud-init,openssh-server,python3,iproute2,netplan.io,linux-image-cloud-amd64";
/** Emulation boots Debian in some minutes. */
const BOOT_MS = 15 * 60_000;
const PLACE = path.join(ROOT, ".runtime/test-debian-1");
const KEY = path.join(SCRATCH, "key");

function whySkipped(): string | false {
  if (!LONG) return "boots Debian, which takes minutes; CAIRN_TEST_LONG=1 runs it";
  if (process.geteuid?.() !== 0) return "needs root to build Debian";
  const missing = Object.entries(PROGRAMS).filter(
    ([program]) => spawnSync("sh", ["-c", `command -v ${program}`]).status !== 0,
  );
  return missing.length > 0 && `not installed: ${missing.map(([, name]) => name).join(" ")}`;
}

/** Builds the disk, the kernel and the initramfs once. */
function buildDebian(): void {
  if (fs.existsSync(PLACE)) return;
  const work = fs.mkdtempSync(`${PLACE}-`);
  const root = path.join(work, "root");
  const run = (program: string, ...args: string[]): void => void execFileSync(program, args, { stdio: "ignore" });
  try {
    const less = "--dpkgopt=path-exclude=/usr/share/{doc,man,locale}/*";
    run("mmdebstrap", "--mode=root", "--variant=minbase", `--include=${PACKAGES}`, less, "bookworm", root);
    for (const [link, name] of [
      ["vmlinuz", "vmlinuz"],
      ["initrd.img", "initrd.img"],
    ] as const)
      fs.copyFileSync(path.join(root, link), path.join(work, name));
    run("mkfs.ext4", "-q", "-L", "root", "-d", root, path.join(work, "disk.raw"), "2G");
    fs.rmSync(root, { recursive: true });
    fs.renameSync(work, PLACE);
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
}

/** Runs a command in a guest by `vm exec` or `vm ssh`, as a user does. */
function inside(how: "exec" | "ssh", name: string, ...command: string[]): { status: number | null; out: string } {
  const line = [buildCommand(), "vm", how, name, "--", ...command];
  const { status, stdout, stderr } = spawnSync(process.execPath, line, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    timeout: BOOT_MS,
  });
  return { status, out: status === 0 ? stdout : stdout + stderr };
}

/** Emulation needs minutes for some commands too: a clone waits until its guest has made its host keys. */
const timeoutMs = BOOT_MS;
const vm = (...args: string[]): Record<string, unknown> => cairnOk(["vm", ...args], { timeoutMs }).data;
const isServed = (name: string): boolean => cairn(["vm", "exec", name, "true"], { timeoutMs }).status === 0;
const isEntered = (name: string): boolean => inside("ssh", name, "true").status === 0;

interface Facts {
  machine: string;
  host: string;
  keys: string;
  drawn: string;
  off: number;
}

/** What must differ between two guests, and by how many seconds the clock is off. */
function facts(name: string): Facts {
  const command =
    "cat /etc/machine-id; hostname; cat /etc/ssh/ssh_host_*_key.pub | sha256sum; head -c 32 /dev/urandom | sha256sum; date +%s.%N";
  const { status, out } = inside("exec", name, "sh", "-c", command);
  assert.equal(status, 0, out);
  const [machine, host, keys, drawn, seconds] = out.split("\n") as [string, string, string, string, string];
  return { machine, host, keys, drawn, off: Math.abs(Number(seconds) - Date.now() / 1000) };
}

suite("a machine with Debian", { skip: whySkipped() }, () => {
  const lines = (name: string): string => new Guest(name).said();

  before(() => {
    buildDebian();
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", KEY]);
  });
  after(() => endMachines());

  test("runs its user data, has a way in, and a clone has an identity of its own that a reboot keeps", async (t) => {
    const userData = path.join(SCRATCH, "user-data");
    fs.writeFileSync(userData, "#cloud-config\nruncmd:\n  - echo marker of the user data >/dev/ttyS0\n");
    const boots = ["--kernel", path.join(PLACE, "vmlinuz"), "--initrd", path.join(PLACE, "initrd.img")];
    const append = ["--append", "root=/dev/vda rw console=ttyS0"];
    const access = ["--ssh-key", KEY, "--user-data", userData, "--forward", "22"];
    const began = performance.now();
    const tell = (what: string): void => t.diagnostic(`${what}: ${Math.round((performance.now() - began) / 1000)} s`);
    vm("run", "web", "--image", path.join(PLACE, "disk.raw"), "--memory", "768M", ...boots, ...append, ...access);
    await eventually("the service runs", () => isServed("web"), BOOT_MS);
    tell("the service runs");
    await eventually("the user data ran", () => lines("web").includes("marker of the user data"), BOOT_MS);
    tell("the user data ran");
    await eventually("SSH answers", () => isEntered("web"), BOOT_MS);
    tell("SSH answers");
    assert.equal(inside("exec", "web", "systemctl", "is-enabled", "cairn-guest").out, "enabled\n");

    assert.equal(inside("exec", "web", "date", "-s", "47 minutes ago").status, 0);
    vm("save", "web");
    const { identity } = vm("clone", "web", "web-2") as {
      identity: { confirmed: string[]; shared: string[]; clock_behind_ms: number };
    };
    tell("the clone answers");
    assert.deepEqual(identity.shared, []);
    assert.ok(identity.clock_behind_ms > 46 * 60_000, String(identity.clock_behind_ms));
    const [source, clone] = [facts("web"), facts("web-2")];
    for (const key of ["machine", "host", "keys", "drawn"] as const) assert.notEqual(clone[key], source[key], key);
    assert.equal(clone.machine, vm("inspect", "web-2")["id"]);
    assert.ok(clone.off <= 2, `${clone.off} s`);
    await eventually("SSH answers in the clone", () => isEntered("web-2"), BOOT_MS);
    tell("SSH answers in the clone");

    const boot = inside("exec", "web-2", "cat", "/proc/sys/kernel/random/boot_id").out;
    inside("exec", "web-2", "systemctl", "--no-block", "reboot");
    const isBooted = (): boolean => {
      const { status, out } = inside("exec", "web-2", "cat", "/proc/sys/kernel/random/boot_id");
      return status === 0 && out !== boot;
    };
    await eventually("the clone boots", isBooted, BOOT_MS);
    const isFinished = (): boolean => inside("exec", "web-2", "test", "-e", "/run/cloud-init/result.json").status === 0;
    await eventually("cloud-init ends", isFinished, BOOT_MS);
    // cloud-init has installed the service for the clone's own instance id, and restarts it.
    await eventually("the service runs again", () => isServed("web-2"), BOOT_MS);
    tell("the clone has booted");
    const after = facts("web-2");
    assert.deepEqual([after.machine, after.host, after.keys], [clone.machine, clone.host, clone.keys]);
    assert.ok(after.off <= 2, `${after.off} s`);
    await eventually("SSH answers after the reboot", () => isEntered("web-2"), BOOT_MS);
    tell("SSH answers after the reboot");
  });
});
