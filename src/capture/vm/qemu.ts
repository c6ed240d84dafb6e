import { spawn } from "node:child_process";
import { closeSync, existsSync, openSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { CairnError, throwIfAborted } from "../../errors.ts";
import { diskFile, type Hardware, MEMORY } from "../../formats/machine/machine.ts";
import { readSmallFile } from "../../fs/durable.ts";
import type { Host } from "./host.ts";
import { type Machine, type MachineRecord, PID_FILE, processIn, SHARED } from "./machine.ts";
import { Qmp } from "./qmp.ts";

/** Processes of QEMU: starting, commands, ending. */

const START_MS = 15_000;
const END_MS = 10_000;
const QUIT_MS = 2000;
/** Time limit for migrations and for waits on disks. */
export const MOVE_MS = 120_000;
/** If less space than this is left, a failed write has failed for lack of it. */
export const LITTLE_ROOM = 16 << 20;
/** Bus address of the first disk and of the first network port; each device has its own. */
const [FIRST_DISK, FIRST_PORT] = [3, 16];

/** Devices with their addresses, and everything else that a saved state depends on: equal lists accept the same state. */
export function devicesOf({ machine, cpu, cpus, memory, disks, nics }: Hardware): string[] {
  return [
    `machine ${machine}`,
    `cpu ${cpu} ${cpus}`,
    `memory ${memory}`,
    "vmgenid",
    "virtio-rng-pci addr=0x2",
    ...disks.map(({ size }, i) => `virtio-blk-pci addr=${hex(FIRST_DISK + i)} size=${size}`),
    ...nics.flatMap((_, i) => [`pcie-root-port addr=${hex(FIRST_PORT + i)}`, `virtio-net-pci bus=port${i}`]),
  ];
}

const hex = (value: number): string => `0x${value.toString(16)}`;

export interface Start {
  /** Folder of its files; QEMU's working directory. */
  folder: string;
  /** Waits for a saved state, and runs nothing before `cont`. */
  incoming: boolean;
  /** SHA-256 of the memory file that is mapped privately; null: a shared file `memory` in the folder. */
  mapped: string | null;
}

/** The arguments of QEMU. Paths are relative to QEMU's folder, which is one level below the machine's. */
function argumentsOf(machine: Machine, record: MachineRecord, { incoming, mapped }: Start): string[] {
  const { hardware, generation } = record;
  const { disks, nics, kernel, initrd, append } = hardware;
  const blob = (digest: string): string => `../../${SHARED}/blobs/${digest}`;
  const memory = mapped === null ? `mem-path=${MEMORY},share=on` : `mem-path=${blob(mapped)},share=off`;
  return [
    ["-nodefaults", "-no-user-config", "-display", "none", "-name", `guest=${machine.name}`],
    ["-machine", `${hardware.machine},accel=${hardware.accelerator},memory-backend=ram`],
    ["-cpu", hardware.cpu, "-smp", String(hardware.cpus), "-m", `${hardware.memory / (1 << 20)}M`],
    ["-object", `memory-backend-file,id=ram,size=${hardware.memory},${memory}`],
    ["-rtc", "base=utc,clock=host", "-pidfile", PID_FILE, "-qmp", "unix:qmp.sock,server=on,wait=off"],
    ["-chardev", "socket,id=console,path=console.sock,server=on,wait=off,logfile=console.log"],
    ["-serial", "chardev:console", "-device", `vmgenid,guid=${generation}`, "-device", "virtio-rng-pci,addr=0x2"],
    kernel === null ? [] : ["-kernel", blob(kernel), "-append", append],
    initrd === null ? [] : ["-initrd", blob(initrd)],
    disks.flatMap(({ base }, i) => diskArguments(i, base === null ? null : blob(base))),
    nics.flatMap((_, i) => nicArguments(hardware, i)),
    incoming ? ["-S", "-incoming", "defer"] : [],
  ].flat();
}

/** An overlay's own header names no base, so the arguments do. */
function diskArguments(index: number, base: string | null): string[] {
  const node = (value: object): string[] => ["-blockdev", JSON.stringify(value)];
  const below = base === null ? null : `base${index}`;
  const file = (name: string, more: object): string[] => node({ driver: "file", filename: name, ...more });
  const image = (name: string, more: object): string[] => node({ driver: "qcow2", "node-name": name, ...more });
  const readOnly = { "read-only": true };
  return [
    below === null ? [] : file(base!, { "node-name": `basefile${index}`, ...readOnly }),
    below === null ? [] : image(below, { file: `basefile${index}`, backing: null, ...readOnly }),
    file(diskFile(index), { "node-name": `file${index}`, discard: "unmap" }),
    image(`disk${index}`, { file: `file${index}`, backing: below, discard: "unmap" }),
    ["-device", `virtio-blk-pci,id=blk${index},drive=disk${index},addr=${hex(FIRST_DISK + index)}`],
  ].flat();
}

function nicArguments({ nics }: Hardware, index: number): string[] {
  const { network, tap } = nics[index]!;
  const { driver, ...rest } = nicDevice({ nics }, index);
  const backend =
    network === "tap" ? `tap,id=net${index},ifname=${tap},script=no,downscript=no` : `user,id=net${index}`;
  const port = `pcie-root-port,id=port${index},chassis=${index + 1},addr=${hex(FIRST_PORT + index)}`;
  const device = [driver, ...Object.entries(rest).map(([key, value]) => `${key}=${value}`)].join(",");
  return ["-device", port, "-netdev", backend, "-device", device];
}

/** A network device as QEMU's arguments and commands describe it. */
export function nicDevice(
  { nics }: Pick<Hardware, "nics">,
  index: number,
): Record<string, string> & { driver: string } {
  const { mac } = nics[index]!;
  return { driver: "virtio-net-pci", id: `nic${index}`, bus: `port${index}`, netdev: `net${index}`, mac };
}

/**
 * Starts QEMU and waits until it accepts commands. QEMU keeps running when this process ends, and writes its messages
 * to `qemu.log` of its folder. Throws `io` with these if it ends at once.
 */
export async function startQemu(host: Host, machine: Machine, record: MachineRecord, start: Start): Promise<Qmp> {
  const { folder } = start;
  if (record.hardware.accelerator === "kvm" && host.accelerator !== "kvm")
    throw new CairnError("unsupported", `${machine.name} needs KVM, which does not work here`);
  const tap = record.hardware.nics.find(
    (nic) => nic.tap !== null && !existsSync(`/sys/class/net/${nic.tap}/tun_flags`),
  )?.tap;
  if (tap !== undefined)
    throw new CairnError("not_found", `there is no tap ${tap}`, {
      hint: "make the tap: ip tuntap add dev NAME mode tap",
    });
  for (const name of [PID_FILE, "qmp.sock", "console.sock"]) rmSync(join(folder, name), { force: true });
  const log = openSync(join(folder, "qemu.log"), "w", 0o600);
  let gone = false;
  let reason: Error | undefined;
  const child = spawn(host.program, argumentsOf(machine, record, start), {
    cwd: folder,
    detached: true,
    stdio: ["ignore", log, log],
  });
  closeSync(log);
  child.once("exit", () => (gone = true)).once("error", (error) => ([gone, reason] = [true, error]));
  child.unref();
  try {
    const isGone = (): boolean => gone;
    // The kernel limits socket paths to 107 bytes; a path below `/proc/PID/cwd` is always short.
    return await Qmp.connect(`/proc/${child.pid}/cwd/qmp.sock`, { deadlineMs: START_MS, isGone });
  } catch (error) {
    child.kill("SIGKILL");
    throw new CairnError("io", `QEMU did not start for ${machine.name}: ${saidIn(folder)}`, { cause: reason ?? error });
  }
}

/** The last words of a folder's QEMU, in one line. */
function saidIn(folder: string): string {
  try {
    const text =
      readSmallFile(join(folder, "qemu.log"), 64 << 20)
        ?.toString("utf8")
        .trim() ?? "";
    return text === "" ? "it printed nothing" : text.slice(-2000).replaceAll("\n", "; ");
  } catch (error) {
    return (error as Error).message;
  }
}

/** Runs work with a QEMU, and ends QEMU if the work fails; the error includes QEMU's messages. */
export async function orEnded<T>(folder: string, qmp: Qmp, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    qmp.close();
    await endQemu(folder);
    if (!(error instanceof CairnError) || error.code !== "io") throw error;
    throw new CairnError("io", `${error.message}; QEMU: ${saidIn(folder)}`, { cause: error });
  }
}

/** A connection to the QEMU that works in a folder; null if none does. Throws `io`, `busy`. */
export async function runningIn(folder: string, deadlineMs = 5000): Promise<Qmp | null> {
  const pid = processIn(folder);
  if (pid === null) return null;
  const isGone = (): boolean => processIn(folder) === null;
  try {
    return await Qmp.connect(`/proc/${pid}/cwd/qmp.sock`, { deadlineMs, isGone });
  } catch (error) {
    if (isGone()) return null;
    throw error;
  }
}

/** Kills the QEMU of a folder, and waits until it has ended. The guest is not asked. Throws `io`. */
export async function endQemu(folder: string): Promise<void> {
  const pid = processIn(folder);
  if (pid === null) return;
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // QEMU has just ended.
  }
  await waitUntilGone(folder, END_MS);
  if (processIn(folder) !== null) throw new CairnError("io", `QEMU, process ${pid}, does not end`);
  rmSync(join(folder, PID_FILE), { force: true });
}

/** Ends the QEMU of a folder; if it responds, it flushes its disks first. Throws `io`. */
export async function quitQemu(folder: string): Promise<void> {
  try {
    using qmp = await runningIn(folder, QUIT_MS);
    await qmp?.run("quit", undefined, QUIT_MS);
    await waitUntilGone(folder, QUIT_MS);
  } catch {
    // QEMU is killed below.
  }
  await endQemu(folder);
}

/** Waits for the end of a folder's QEMU; true if it ended in time. */
export async function waitUntilGone(folder: string, deadlineMs: number, signal?: AbortSignal): Promise<boolean> {
  const end = performance.now() + deadlineMs;
  while (processIn(folder) !== null) {
    if (performance.now() > end) return false;
    throwIfAborted(signal);
    await sleep(5);
  }
  return true;
}

/** Asks for the guest's status, in QEMU's words. */
export async function statusOf(qmp: Qmp): Promise<string> {
  const { status } = (await qmp.run("query-status")) as { status?: string };
  return status ?? "unknown";
}

/**
 * Resumes the guest, but not during a migration. Throws `io` if QEMU still waits for its state, or if the guest does
 * not run afterwards.
 */
export async function resume(qmp: Qmp): Promise<void> {
  if ((await statusOf(qmp)) === "inmigrate")
    throw new CairnError("io", "the machine is still waiting for its saved state");
  await cancelMigration(qmp);
  if ((await statusOf(qmp)) === "running") return;
  await qmp.run("cont", undefined, MOVE_MS);
  const after = await statusOf(qmp);
  if (after !== "running") throw new CairnError("io", `QEMU was told to run the machine, but its status is ${after}`);
}

const UNDER_WAY = new Set(["setup", "active", "pre-switchover", "device", "cancelling", "wait-unplug"]);

/** Cancels a migration that a killed or failed command started: it would stop the guest at its end. */
async function cancelMigration(qmp: Qmp): Promise<void> {
  const isUnderWay = async (): Promise<boolean> => {
    const { status } = (await qmp.run("query-migrate")) as { status?: string };
    return UNDER_WAY.has(status ?? "");
  };
  if (!(await isUnderWay())) return;
  await qmp.run("migrate_cancel");
  for (const end = performance.now() + END_MS; await isUnderWay();) {
    if (performance.now() > end)
      throw new CairnError("io", "QEMU does not cancel the migration of the machine's state");
    await sleep(5);
  }
}

/** Waits for the end of a migration. Throws `io` if it fails or does not end in time; a missing status is no success. */
export async function migrated(qmp: Qmp, deadlineMs = MOVE_MS, onLate?: () => Promise<unknown>): Promise<void> {
  const started = performance.now();
  let late = onLate;
  for (;;) {
    const info = (await qmp.run("query-migrate")) as { status?: string; "error-desc"?: string };
    if (info.status === "completed") return;
    if (info.status === "failed" || info.status === "cancelled")
      throw new CairnError(
        "io",
        `QEMU's migration of the machine's state failed: ${info["error-desc"] ?? info.status}`,
      );
    const passed = performance.now() - started;
    if (passed > deadlineMs)
      throw new CairnError(
        "io",
        `QEMU's migration of the machine's state did not finish within ${Math.round(deadlineMs / 1000)} s`,
      );
    if (late !== undefined && passed > deadlineMs / 4) {
      await late();
      late = undefined;
    }
    await sleep(2);
  }
}

/** Sets the content of a migration: devices with all memory, or without memory in shared files. */
export async function setMigration(qmp: Qmp, ignoreShared: boolean): Promise<void> {
  const capabilities = [{ capability: "x-ignore-shared", state: ignoreShared }];
  await qmp.run("migrate-set-capabilities", { capabilities });
  await qmp.run("migrate-set-parameters", { "max-bandwidth": 2 ** 40, "downtime-limit": 50 });
}
