import { spawn } from "node:child_process";
import { closeSync, existsSync, openSync, rmSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { CairnError, hintOfErrno, throwIfAborted, toCairnError } from "../../errors.ts";
import { diskFile, type Hardware, MEMORY, PORT_NAME, SEED_FILE, SEED_SIZE } from "../../formats/machine/machine.ts";
import { formatBytes } from "../../formats/sizes.ts";
import { readSmallFile, temporaryName } from "../../fs/durable.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { Host } from "./host.ts";
import { hasOpenFiles, type Machine, type MachineRecord, PID_FILE, processIn, SHARED, socketOf } from "./machine.ts";
import { Qmp } from "./qmp.ts";

/** Processes of QEMU: starting, commands, ending. */

const START_MS = 15_000;
const END_MS = 10_000;
const QUIT_MS = 2000;
/** Time limit for migrations and for waits on disks. */
export const MOVE_MS = 120_000;
/** Milliseconds in which the end of a QEMU is recorded. */
const RECORD_MS = 2000;
/** Size of a small file. */
const SMALL = 1 << 20;
/** File in QEMU's folder that says how QEMU ended: its exit status in a shell, then the free blocks and their size. */
const ENDED = "ended";
const SOCKETS = ["qmp.sock", "console.sock", "identity.sock"];
/** Files of a folder's QEMU that belong to no saved state. */
export const RUN_FILES = [PID_FILE, ENDED, "qemu.log", "console.log", ...SOCKETS];
/** The exit status in a shell of a program that was ended by SIGBUS: the kernel had no block for its mapped memory. */
const NO_BLOCK = 128 + constants.signals.SIGBUS;
/** Runs QEMU and records how it ended. The memory of a guest that ended for lack of space makes room for the record, unless the guest is hibernated. */
const KEEPER = `"$@" 3>&-
status=$? room=$(stat -f -c '%a %S' .)
[ $status = ${NO_BLOCK} ] && ! grep -q '^ *"state": "hibernated"' ../machine.json && rm -f ${MEMORY}
echo "$status $room" >&3 || { sync -f .; echo "$status $room" >&3; }`;
/** Bus addresses of the first disk, the seed disk, the serial port's controller and the first network port. A machine has at most 8 disks. */
const [FIRST_DISK, SEED_ADDRESS, SERIAL_ADDRESS, FIRST_PORT] = [3, 14, 15, 16];

/** Devices with their addresses, and everything else that a saved state depends on: equal lists accept the same state. */
export function devicesOf({ machine, cpu, cpus, memory, disks, cdrom, nics, seed, port }: Hardware): string[] {
  return [
    `machine ${machine}`,
    `cpu ${cpu} ${cpus}`,
    `memory ${memory}`,
    "vmgenid",
    "virtio-rng-pci addr=0x2",
    ...disks.map(({ size }, i) => `virtio-blk-pci addr=${hex(FIRST_DISK + i)} size=${size}`),
    ...(seed ? [`virtio-blk-pci addr=${hex(SEED_ADDRESS)} size=${SEED_SIZE}`] : []),
    ...(port ? [`virtio-serial-pci addr=${hex(SERIAL_ADDRESS)} port=${PORT_NAME}`] : []),
    ...(cdrom === null ? [] : ["ide-cd bus=ide.0"]),
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
  const { disks, cdrom, nics, kernel, initrd, append, seed, port } = hardware;
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
    seed ? seedArguments() : [],
    port ? portArguments() : [],
    cdrom === null ? [] : discArguments(blob(cdrom)),
    nics.flatMap((_, i) => nicArguments(hardware, i)),
    incoming ? ["-S", "-incoming", "defer"] : [],
  ].flat();
}

/** The seed disk belongs to the machine, so it is in the folder above QEMU's. */
function seedArguments(): string[] {
  const device = `virtio-blk-pci,id=seed0,drive=seed,addr=${hex(SEED_ADDRESS)}`;
  return readOnlyArguments("seed", `../${SEED_FILE}`, device);
}

/** A CD drive at the SATA controller that the machine type has. The BIOS boots from it if no disk is bootable. */
const discArguments = (file: string): string[] =>
  readOnlyArguments("cdrom", file, "ide-cd,id=cd0,drive=cdrom,bus=ide.0");

function readOnlyArguments(name: string, filename: string, device: string): string[] {
  const node = { driver: "raw", "node-name": name, "read-only": true, file: { driver: "file", filename } };
  return ["-blockdev", JSON.stringify(node), "-device", device];
}

function portArguments(): string[] {
  return [
    ["-chardev", "socket,id=identity,path=identity.sock,server=on,wait=off"],
    ["-device", `virtio-serial-pci,id=serial0,addr=${hex(SERIAL_ADDRESS)}`],
    ["-device", `virtserialport,bus=serial0.0,nr=1,chardev=identity,name=${PORT_NAME}`],
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
  const { network, tap, internet } = nics[index]!;
  const { driver, ...rest } = nicDevice({ nics }, index);
  const backend =
    network === "tap"
      ? `tap,id=net${index},ifname=${tap},script=no,downscript=no`
      : `user,id=net${index},restrict=${internet ? "off" : "on"}`;
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
  for (const name of [PID_FILE, ...SOCKETS]) rmSync(join(folder, name), { force: true });
  const log = openSync(join(folder, "qemu.log"), "w", 0o600);
  const ended = openSync(join(folder, ENDED), "w", 0o600);
  let gone = false;
  let reason: Error | undefined;
  const child = spawn("sh", ["-c", KEEPER, "sh", host.program, ...argumentsOf(machine, record, start)], {
    cwd: folder,
    detached: true,
    stdio: ["ignore", log, log, ended],
  });
  for (const fd of [log, ended]) closeSync(fd);
  child.once("exit", () => (gone = true)).once("error", (error) => ([gone, reason] = [true, error]));
  child.unref();
  try {
    const isGone = (): boolean => gone;
    return await Qmp.connect(socketOf(child.pid ?? 0, "qmp"), { deadlineMs: START_MS, isGone });
  } catch (error) {
    try {
      // QEMU may have no pid file yet; it is in the group of its shell.
      if (!gone && child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    } catch {
      // QEMU has just ended.
    }
    throw endError(folder, `QEMU did not start for ${machine.name}`, reason ?? error);
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
    const end = performance.now() + RECORD_MS;
    while (processIn(folder) === null && howEnded(folder) === null && performance.now() < end) await sleep(5);
    const failure = endError(folder, (error as Error).message, error);
    await endQemu(folder);
    throw error instanceof CairnError && error.code === "io" ? failure : error;
  }
}

/** An error with QEMU's messages, and with the recorded reason if QEMU has ended. */
function endError(folder: string, message: string, cause: unknown): CairnError {
  const end = howEnded(folder);
  const said = `${message}${end === null ? "" : `: ${end.why}`}; QEMU: ${saidIn(folder)}`;
  return end?.isFull === true || !hasRoom(folder)
    ? new CairnError("no_space", said, { hint: hintOfErrno("ENOSPC"), cause })
    : new CairnError("io", said, { cause });
}

/** False if a small file has no room beside a folder, which only the kernel can tell: XFS and btrfs are full with some MiB free. */
export function hasRoom(folder: string): boolean {
  const file = join(dirname(folder), temporaryName());
  try {
    writeFileSync(file, Buffer.alloc(SMALL));
    return true;
  } catch (error) {
    return toCairnError(error).code !== "no_space";
  } finally {
    rmSync(file, { force: true });
  }
}

export function noRoom(work: string, cause?: unknown): CairnError {
  return new CairnError("no_space", `not enough free space to ${work}`, { hint: hintOfErrno("ENOSPC"), cause });
}

/** The recorded end of a folder's last QEMU, with a sentence for people; null if none was recorded. */
export function howEnded(folder: string): { isFull: boolean; why: string } | null {
  const text = readSmallFile(join(folder, ENDED), 64)?.toString("latin1") ?? "";
  const [status, blocks, size] = /^(\d+) (\d+) (\d+)\n$/.exec(text)?.slice(1).map(Number) ?? [];
  if (status === undefined) return null;
  const free = formatBytes(blocks! * size!);
  const signal = Object.entries(constants.signals).find(([, number]) => status === 128 + number)?.[0];
  const why =
    status === NO_BLOCK
      ? `its QEMU ended: the file system gave the guest's memory no more space (${free} were free)`
      : signal === undefined
        ? `its QEMU ended with status ${status}: ${saidIn(folder)}`
        : `its QEMU was ended by ${signal}`;
  return { isFull: status === NO_BLOCK || blocks === 0, why };
}

/** A connection to the QEMU that works in a folder; null if none does. Throws `io`, `busy`. */
export async function runningIn(folder: string, deadlineMs = 5000): Promise<Qmp | null> {
  const pid = processIn(folder);
  if (pid === null) {
    if (await waitUntilGone(folder, deadlineMs)) return null;
    throw new CairnError("busy", `a QEMU that is not visible here has files of ${printablePath(folder)} open`);
  }
  const isGone = (): boolean => processIn(folder) === null;
  try {
    return await Qmp.connect(socketOf(pid, "qmp"), { deadlineMs, isGone });
  } catch (error) {
    if (isGone()) return null;
    throw error;
  }
}

/** Kills the QEMU of a folder, and waits until it has ended. The guest is not asked. Throws `io`. */
export async function endQemu(folder: string): Promise<void> {
  const pid = processIn(folder);
  try {
    if (pid !== null) process.kill(pid, "SIGKILL");
  } catch {
    // QEMU has just ended.
  }
  if (!(await waitUntilGone(folder, END_MS)))
    throw new CairnError("io", `the QEMU of ${printablePath(folder)} does not end`);
  if (pid !== null) rmSync(join(folder, PID_FILE), { force: true });
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

/** Waits until a folder's QEMU has ended and its files are closed. Returns false if that takes longer than the deadline. */
export async function waitUntilGone(folder: string, deadlineMs: number, signal?: AbortSignal): Promise<boolean> {
  const end = performance.now() + deadlineMs;
  while (processIn(folder) !== null || hasOpenFiles(folder)) {
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

/** True if the guest is paused and can run. */
export async function isPaused(qmp: Qmp): Promise<boolean> {
  return ["paused", "prelaunch"].includes(await statusOf(qmp));
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
