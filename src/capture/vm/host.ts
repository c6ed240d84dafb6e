import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, openSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CairnError } from "../../errors.ts";
import { Fields, parseJson } from "../../formats/fields.ts";
import { findProgram } from "../../fs/child-pipes.ts";
import { durableWrite, readSmallFile } from "../../fs/durable.ts";
import { thisProcess } from "../../fs/lock-owner.ts";
import { sharedFile } from "./machine.ts";

/** The QEMU of this machine, and whether KVM works here. */

export interface Host {
  program: string;
  /** `7.2.22` */
  version: string;
  accelerator: "kvm" | "tcg";
}

const PROGRAM = "qemu-system-x86_64";
const PROBE_SECONDS = 3;
const INSTALL = "apt-get install qemu-system-x86 qemu-utils coreutils xorriso";

/**
 * Examines this machine's QEMU once, since that takes longer than a clone. The folder of machines keeps the result
 * until the program or the boot changes. Throws `not_found` if QEMU is not installed.
 */
export async function hostOf(root: string): Promise<Host> {
  const program = programOf(PROGRAM);
  const { size, mtimeMs } = statSync(program);
  const stamp = `${program} ${size} ${mtimeMs} ${thisProcess().bootId}`;
  const file = sharedFile(root, "host.json");
  const known = readKept(file, stamp, program);
  if (known !== null) return known;
  const text = execFileSync(program, ["--version"], { encoding: "utf8" });
  const version = /version (\d+\.\d+(?:\.\d+)?)/.exec(text)?.[1];
  if (version === undefined) throw new CairnError("unsupported", `${program} does not print its version`);
  const host: Host = { program, version, accelerator: (await kvmWorks(program)) ? "kvm" : "tcg" };
  durableWrite(file, Buffer.from(JSON.stringify({ stamp, ...host })));
  return host;
}

function readKept(file: string, stamp: string, program: string): Host | null {
  try {
    const bytes = readSmallFile(file, 1 << 16);
    if (bytes === null) return null;
    const fields = new Fields(parseJson(bytes, file), file);
    if (!fields.isText("stamp", stamp)) return null;
    return {
      program,
      version: fields.text("version"),
      accelerator: fields.isText("accelerator", "kvm") ? "kvm" : "tcg",
    };
  } catch {
    // An incomplete file is ignored, and QEMU is examined again.
    return null;
  }
}

/** The path of a program that machines need. Throws `not_found`. */
export function programOf(name: string): string {
  const program = findProgram(name);
  if (program !== null) return program;
  throw new CairnError("not_found", `${name} is not installed`, { hint: INSTALL });
}

/** Machine code of the firmware that probes KVM, and of its reset vector: tools/kvm-probe.s. */
const PROBE = [
  "fa31c08ec02666c7060010032000002666c7060020033000002666c7060030830000002e660f0116a0fe66b820000000",
  "0f22e066b8001000000f22d866b9800000c00f32660d000100000f300f20c0660d010000800f22c066ea60fe0f000800",
  "66b810008ed88ed0bc0080000031c00fa2b940420f00515affc975fa66baf400b015eef48db400000000000000000000",
  "ffff0000009aaf00ffff00000092cf00170088fe0f000000000000000000",
].join("");
const RESET = "ea00fe00f0";
const FIRMWARE_SIZE = 64 << 10;

/**
 * True if a processor boots under KVM: it enters long mode and ends QEMU with a status of its own. Opening the device
 * proves nothing: some nested ones never come that far.
 */
async function kvmWorks(program: string): Promise<boolean> {
  const firmware = Buffer.alloc(FIRMWARE_SIZE, 0xf4);
  firmware.set(Buffer.from(PROBE, "hex"), FIRMWARE_SIZE - 512);
  firmware.set(Buffer.from(RESET, "hex"), FIRMWARE_SIZE - 16);
  const file = join(tmpdir(), `cairn-kvm-${randomBytes(8).toString("hex")}`);
  const fd = openSync(file, "wx+", 0o600);
  try {
    // Without a name the file goes away with its last process, however that ends.
    rmSync(file);
    writeSync(fd, firmware);
    const machine = ["-nodefaults", "-no-user-config", "-machine", "pc,accel=kvm", "-m", "16", "-display", "none"];
    const args = [...machine, "-bios", "/proc/self/fd/3", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"];
    return await new Promise((resolve) => {
      // timeout(1) kills a hanging QEMU even if this process is killed meanwhile.
      const child = spawn(programOf("timeout"), ["-s", "KILL", String(PROBE_SECONDS), program, ...args], {
        stdio: ["ignore", "ignore", "ignore", fd],
      });
      child.once("error", () => resolve(false)).once("exit", (status) => resolve(status === 0x15 * 2 + 1));
    });
  } finally {
    closeSync(fd);
  }
}
