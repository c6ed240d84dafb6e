import { randomBytes } from "node:crypto";
import { existsSync, lstatSync, mkdirSync, readdirSync, realpathSync, renameSync } from "node:fs";
import { join } from "node:path";
import { advice, CairnError, line, toCairnError, word } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { type Hardware, isTapName, type MachineNames, type Nic } from "../../formats/machine/machine.ts";
import { fsyncDirectory, readSmallFile, TEMPORARY_PREFIX, temporaryName } from "../../fs/durable.ts";
import { acquireLock, type Lock, lockHolder } from "../../fs/lock.ts";
import { parseOwner } from "../../fs/lock-owner.ts";
import { removeAll, requireUnmounted } from "../../fs/remove-all.ts";
import type { MachineRestore } from "../../formats/records/unfinished.ts";
import type { Told } from "../../fs/unfinished.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { addBlob, addImage, imageSize, newDisk, removeUnusedBlobs, shareBlobs } from "./blobs.ts";
import type { Host } from "./host.ts";
import {
  decodeRecord,
  encodeRecord,
  Machine,
  machinesIn,
  type MachineRecord,
  type OperationOptions,
  PID_FILE,
  processIn,
  sharedFile,
} from "./machine.ts";
import {
  endQemu,
  hasRoom,
  howEnded,
  MOVE_MS,
  noRoom,
  orEnded,
  quitQemu,
  resume,
  runningIn,
  startQemu,
  statusOf,
  waitUntilGone,
} from "./qemu.ts";
import type { Qmp } from "./qmp.ts";
import { requireSeed, type Seed, writeSeed } from "./seed.ts";
import {
  checkFits,
  flushFiles,
  forgetMemory,
  growDisks,
  hibernatedIn,
  loadState,
  newGeneration,
  newMac,
  renewNics,
} from "./state.ts";

/** The life of machines: one operation at a time changes a machine, and the next one cleans up after a killed one. */

/**
 * Runs work on a machine under its lock. `ends`: ends its QEMU first, even if it does not respond. Throws `not_found`,
 * `busy`.
 */
export async function withMachine<T>(
  root: string,
  name: string,
  purpose: string,
  { signal, lockTimeoutMs, ends = false }: OperationOptions & { ends?: boolean },
  work: (machine: Machine, record: MachineRecord) => Promise<T>,
): Promise<T> {
  const machine = Machine.in(root, name);
  machine.read();
  using _lock = await acquireLock(machine.lock, { purpose: `vm ${purpose}`, signal, timeoutMs: lockTimeoutMs });
  if (ends && undecided(machine, machine.read()) === null) await quitQemu(machine.live);
  await settle(machine);
  const record = machine.read();
  const renews = record.foreignNics && purpose !== "stop" && purpose !== "rm";
  return await work(machine, renews ? await ownNics(machine, record) : record);
}

/** Statuses of a guest that a user paused, or that QEMU stopped for lack of space. */
const FROZEN = new Set(["paused", "postmigrate", "prelaunch", "finish-migrate", "io-error"]);

/** Finishes or takes back a killed operation: all of it is done, or none. */
async function settle(machine: Machine): Promise<MachineRecord> {
  let record = machine.read();
  if (record.state === "creating") {
    await removeFolder(machine);
    throw new CairnError(
      "not_found",
      `the creation of ${machine.name} was interrupted, and its files have been removed`,
      { hint: "create the machine again" },
    );
  }
  const restore = undecided(machine, record);
  if (restore !== null) record = await takeBack(machine, record, restore);
  if (machine.restoring.isBegun) machine.restoring.end();
  for (const leftover of [machine.next, machine.old, ...temporariesOf(machine)]) {
    if (!existsSync(leftover)) continue;
    await endQemu(leftover);
    removeAll(leftover);
  }
  if (record.state === "hibernated") {
    // A kill came between the commit and the end of QEMU, or before the commit of a start.
    await endQemu(machine.live);
    return record;
  }
  let status = "";
  try {
    using qmp = await runningIn(machine.live);
    if (qmp === null) return { ...record, error: record.error ?? abruptEnd(machine) };
    status = await statusOf(qmp);
    if (status === "inmigrate") {
      await endQemu(machine.live);
      return failed(machine, record, "its saved state was not loaded completely");
    }
    // Also resumes a running guest: a migration in progress would stop it at its end.
    if (status === "running" || FROZEN.has(status)) await resume(qmp);
    return record;
  } catch (error) {
    return {
      ...record,
      error: `its guest may be stopped${status && `, QEMU says ${status}`}: ${(error as Error).message}; if QEMU hangs, end it: cairn vm stop --force ${machine.name}`,
    };
  }
}

/** Returns the reason why the last QEMU of a machine ended without its guest; null if it ended in order, which removes its pid file, or runs. */
export function abruptEnd({ live }: Machine): string | null {
  if (!existsSync(join(live, PID_FILE)) || processIn(live) !== null) return null;
  return howEnded(live)?.why ?? "its QEMU was killed with its shell, or the host went down, while the guest ran";
}

/** Gives a clone's guest its own network devices, after it released the present ones. Returns the machine's new record. */
export async function ownNics(machine: Machine, record: MachineRecord): Promise<MachineRecord> {
  try {
    using qmp = await runningIn(machine.live);
    if (qmp === null || !(await renewNics(qmp, record.hardware))) return record;
  } catch {
    // The links of the present devices are down, and the next operation tries again.
    return record;
  }
  const own: MachineRecord = { ...record, foreignNics: false };
  machine.write(own);
  return own;
}

/** Removes a machine's name in one step, then its files. Its QEMU has no time to write. */
async function removeFolder(machine: Machine): Promise<void> {
  requireUnmounted(machine.folder);
  await endQemu(machine.live);
  const gone = sharedFile(machine.root, temporaryName());
  renameSync(machine.folder, gone);
  fsyncDirectory(machine.root);
  failpoint("vm-rm.renamed");
  removeAll(gone);
}

function temporariesOf(machine: Machine): string[] {
  return readdirSync(machine.folder)
    .filter((name) => name.startsWith(TEMPORARY_PREFIX))
    .map((name) => join(machine.folder, name));
}

function failed(machine: Machine, record: MachineRecord, why: string): MachineRecord {
  const broken: MachineRecord = { ...record, state: "error", error: why };
  machine.write(broken);
  return broken;
}

/**
 * Makes a new machine in a folder of machines. `fill` writes its files into the folder `live` and flushes them. The
 * record becomes valid last. Throws `already_exists`.
 */
export async function makeMachine(
  root: string,
  record: MachineRecord,
  options: OperationOptions,
  { fill, goOn }: { fill(machine: Machine): Promise<MachineRecord>; goOn?(made: MachineRecord): Promise<void> },
): Promise<MachineRecord> {
  const machine = new Machine(root, record.name);
  requireReadable(record);
  using _lock = await claimName(machine, record, options);
  let made: MachineRecord;
  try {
    failpoint("vm-create.begun");
    made = await fill(machine);
    failpoint("vm-create.filled");
    machine.write(made);
    fsyncDirectory(machine.root);
  } catch (error) {
    await removeFolder(machine);
    throw error;
  }
  await goOn?.(made);
  return made;
}

const isThere = (place: string): boolean => lstatSync(place, { throwIfNoEntry: false }) !== undefined;
const taken = (machine: Machine): CairnError =>
  new CairnError("already_exists", `a machine or file called ${machine.name} exists already`, {
    hint: "choose another name",
  });

/** True if a machine's folder has only leftovers of a killed creation. */
function isUnfinished(machine: Machine): boolean {
  if (machine.exists()) return machine.read().state === "creating";
  if (!lstatSync(machine.folder).isDirectory()) return false;
  const own = (name: string): boolean => {
    if (name.startsWith(TEMPORARY_PREFIX)) return true;
    const bytes = name === "lock" ? readSmallFile(machine.lock, 1 << 16) : null;
    return bytes !== null && (bytes.every((byte) => byte === 0) || parseOwner(bytes) !== null);
  };
  return readdirSync(machine.folder).every(own);
}

/** Throws `already_exists` if a name is taken, before a long operation begins. */
export function requireFreeName(machine: Machine): void {
  if (isThere(machine.folder) && !isUnfinished(machine)) throw taken(machine);
}

/** Claims the name of a new machine with its lock; removes leftovers of a killed creation. */
async function claimName(
  machine: Machine,
  record: MachineRecord,
  { signal, lockTimeoutMs }: OperationOptions,
): Promise<Lock> {
  // Only processes that hold this lock see a folder without a lock or record.
  using _names = await acquireLock(sharedFile(machine.root, "names.lock"), {
    purpose: "vm create",
    signal,
    timeoutMs: lockTimeoutMs,
  });
  if (isThere(machine.folder)) {
    if (!isUnfinished(machine) || lockHolder(machine.lock) !== null) throw taken(machine);
    await removeFolder(machine);
  }
  mkdirSync(machine.folder, { mode: 0o700 });
  const lock = await acquireLock(machine.lock, { purpose: "vm create", signal, timeoutMs: 0 });
  machine.write({ ...record, state: "creating" });
  return lock;
}

export interface NewMachine extends Omit<MachineNames, "image"> {
  cpus: number;
  memory: number;
  cpu: string;
  /** Path of the disk image that the first disk starts as. */
  image: string | null;
  /** Size of each disk in bytes. The first must be at least the image's size; null: exactly that size. */
  disks: readonly (number | null)[];
  kernel: string | null;
  initrd: string | null;
  append: string;
  /** `user`, or the name of an existing tap. */
  nics: readonly string[];
  seed: Seed;
}

/** A network device with an address of its own: `user`, or the name of a tap. */
export function newNic(network: string): Nic {
  if (network === "user") return { network, tap: null, mac: newMac() };
  if (isTapName(network)) return { network: "tap", tap: network, mac: newMac() };
  throw new CairnError("usage", `${JSON.stringify(network.slice(0, 80))} is not a valid name of a tap`);
}

/** The record of a machine that is not made yet. */
export function newRecord(names: MachineNames, hardware: Hardware): MachineRecord {
  return {
    ...names,
    id: randomBytes(16).toString("hex"),
    createdAt: new Date().toISOString(),
    state: "created",
    error: null,
    hardware,
    lineage: [],
    generation: newGeneration(),
    mapped: null,
    foreignNics: false,
  };
}

const SECTOR = 512;

/** Throws `usage` for a record that could not be decoded again. */
function requireReadable(record: MachineRecord): void {
  try {
    decodeRecord(encodeRecord(record), "the machine");
  } catch (error) {
    throw new CairnError("usage", (error as Error).message);
  }
}

/** Makes a machine of an image, a kernel, or both. Steps: its name with a record in state `creating`; its files; the final record. */
export async function createMachine(
  root: string,
  host: Host,
  given: NewMachine,
  options: OperationOptions,
): Promise<MachineRecord> {
  const { name, description, image, disks, nics, kernel, initrd, seed, ...rest } = given;
  const { signal } = options;
  requireFreeName(new Machine(root, name));
  using _shared = await shareBlobs(root, options);
  const kept = async (file: string | null): Promise<string | null> =>
    file === null ? null : addBlob(root, realFile(file), { signal });
  const base = image === null ? null : await addImage(root, realFile(image), signal);
  const least = base === null ? 0 : imageSize(root, base);
  const hardware: Hardware = {
    ...rest,
    machine: `pc-q35-${host.version.split(".").slice(0, 2).join(".")}`,
    accelerator: host.accelerator,
    kernel: await kept(kernel),
    initrd: await kept(initrd),
    // QEMU counts in sectors.
    disks: disks.map((size, i) => ({
      size: Math.ceil((size ?? least) / SECTOR) * SECTOR,
      base: i === 0 ? base : null,
    })),
    nics: nics.map(newNic),
    seed: true,
    port: true,
  };
  const small = hardware.disks.find(({ size }, i) => i === 0 && size < least);
  if (small !== undefined)
    throw new CairnError("usage", `a disk of ${small.size} bytes is too small for an image of ${least} bytes`);
  const record = newRecord({ name, description, image: image ?? "" }, hardware);
  return await makeMachine(root, record, options, {
    async fill(machine) {
      await writeSeed(machine, record, seed);
      mkdirSync(machine.live, { mode: 0o700 });
      for (const [i, { size }] of hardware.disks.entries()) await newDisk(machine.live, i, size);
      await flushFiles(machine.live);
      return record;
    },
  });
}

function realFile(file: string): string {
  try {
    return realpathSync(file);
  } catch (error) {
    throw toCairnError(error, `read ${printablePath(file)}`);
  }
}

/** Boots a stopped machine; a hibernated one goes on. Throws `conflict` if it runs, `refused` in the state `error`. */
export async function startMachine(host: Host, machine: Machine, record: MachineRecord): Promise<void> {
  using running = await runningIn(machine.live);
  if (running !== null) throw new CairnError("conflict", `${machine.name} runs already`);
  if (record.state === "error")
    throw new CairnError("refused", `${machine.name} is in the state error: ${record.error}`, {
      hint: advice`restore a saved state: ${line("vm restore", "restoreMachine", word("machines"), word("name"))}`,
    });
  if (record.state === "hibernated") return await wake(host, machine, record);
  forgetMemory(machine);
  // The start would replace the recorded end of the last QEMU.
  if (!hasRoom(machine.live)) throw noRoom(`start ${machine.name}`);
  // A fresh boot uses the present devices and any accelerator, and machines of earlier builds get the port.
  const { hardware } = record;
  const fresh = { ...record, hardware: { ...hardware, accelerator: host.accelerator, port: true } };
  if (hardware.seed) await requireSeed(machine, record);
  await growDisks(machine, record);
  using qmp = await startQemu(host, machine, fresh, { folder: machine.live, incoming: false, mapped: null });
  await orEnded(machine.live, qmp, async () => {
    machine.write({ ...fresh, state: "stopped", mapped: null, foreignNics: false });
    await resume(qmp);
  });
}

/** Lets a hibernated guest go on. Steps: QEMU loads the state, paused; ● the machine's record; the guest runs. */
async function wake(host: Host, machine: Machine, record: MachineRecord): Promise<void> {
  checkFits(host, hibernatedIn(machine));
  const awake: MachineRecord = { ...record, state: "stopped" };
  using qmp = await loadState(host, machine, awake, machine.live);
  await orEnded(machine.live, qmp, async () => {
    failpoint("vm-start.loaded");
    machine.write(awake);
    failpoint("vm-start.committed");
    await resume(qmp);
  });
}

/** Powers a hibernated machine off: the next start boots it. */
export function powerOff(machine: Machine, record: MachineRecord): void {
  machine.write({ ...record, state: "stopped" });
  forgetMemory(machine);
}

/** New figures of a machine's hardware; those that are absent stay. */
export interface Changes {
  memory?: number | undefined;
  cpus?: number | undefined;
  /** Bytes of the first disk. */
  diskSize?: number | undefined;
}

/**
 * Changes a stopped machine. Steps: ● its record; then the disk grows. If that is interrupted, the next start or save
 * makes the disk as large as the record says.
 */
export async function changeMachine(machine: Machine, record: MachineRecord, changes: Changes): Promise<void> {
  const { hardware } = record;
  if ((record.state !== "created" && record.state !== "stopped") || processIn(machine.live) !== null)
    throw new CairnError("conflict", `${machine.name} is not stopped, so its hardware cannot change`, {
      hint: advice`stop the machine first: ${line(`vm stop ${machine.name}`, "stopMachine", word("machines"), machine.name)}`,
    });
  const { memory = hardware.memory, cpus = hardware.cpus, diskSize } = changes;
  const [first, ...others] = hardware.disks;
  const size = diskSize === undefined ? first?.size : Math.ceil(diskSize / SECTOR) * SECTOR;
  if (diskSize !== undefined && first === undefined) throw new CairnError("usage", `${machine.name} has no disk`);
  if (first !== undefined && size! < first.size)
    throw new CairnError("refused", `the disk of ${machine.name} has ${first.size} bytes, and a disk cannot shrink`);
  const disks = first === undefined ? [] : [{ ...first, size: size! }, ...others];
  const changed: MachineRecord = { ...record, hardware: { ...hardware, memory, cpus, disks } };
  requireReadable(changed);
  machine.write(changed);
  failpoint("vm-set.committed");
  await growDisks(machine, changed);
}

/** Stops a machine: asks its guest to shut down, and ends QEMU after the deadline. False: the guest did not shut down by itself. */
export async function stopMachine(machine: Machine, deadlineMs: number, signal?: AbortSignal): Promise<boolean> {
  using qmp = await runningIn(machine.live);
  if (qmp === null) return true;
  await qmp.run("system_powerdown");
  if (await waitUntilGone(machine.live, deadlineMs, signal)) return true;
  qmp.close();
  await quitQemu(machine.live);
  return false;
}

/** Removes a stopped machine, and blobs that only it needed. */
export async function removeMachine(machine: Machine, { signal, lockTimeoutMs }: OperationOptions): Promise<void> {
  // Another process that creates this name waits, and finds the name free.
  using _names = await acquireLock(sharedFile(machine.root, "names.lock"), {
    purpose: "vm rm",
    signal,
    timeoutMs: lockTimeoutMs,
  });
  failpoint("vm-rm.begun");
  await removeFolder(machine);
  await removeUnusedBlobs(machine.root);
}

/** A machine as lists show it: its record, and whether it runs; also during an operation. */
export interface Seen {
  machine: Machine;
  record: MachineRecord;
  pid: number | null;
  /** The running operation, in words; null: none. */
  operation: string | null;
}

/** Reads a machine; cleans up after a killed operation first, unless another operation holds the lock. Throws `not_found`. */
export async function lookAt(machine: Machine): Promise<Seen> {
  let record = machine.read();
  let operation: string | null = null;
  try {
    using _lock = await acquireLock(machine.lock, { purpose: "vm list", timeoutMs: 0 });
    record = await settle(machine);
  } catch (error) {
    if (!(error instanceof CairnError) || error.code === "not_found") throw error;
    // On a full disk no lock can be taken; the machine is shown all the same.
    operation = error.code === "busy" ? (lockHolder(machine.lock)?.purpose ?? "busy") : null;
  }
  return { machine, record, pid: processIn(machine.live), operation };
}

/** Every machine of a folder; warns of unreadable ones. */
export async function lookAtAll(root: string, onWarning?: (message: string) => void): Promise<Seen[]> {
  const seen: Seen[] = [];
  for (const machine of machinesIn(root)) {
    try {
      seen.push(await lookAt(machine));
    } catch (error) {
      onWarning?.(`${machine.name}: ${(error as Error).message}`);
    }
  }
  return seen;
}

/**
 * Exchanges a machine's files for the set in `next`, in the steps of {@link MACHINE_RESTORE}. A failure before the
 * commit puts the old set back, and its guest goes on. A machine with a tap (one user only) ends first; a failure
 * leaves it in the state `error`.
 */
export async function swapState(
  machine: Machine,
  before: MachineRecord,
  after: MachineRecord,
  load: (() => Promise<Qmp>) | null,
): Promise<Qmp | null> {
  const running = await runningIn(machine.live);
  const { restoring } = machine;
  const work: MachineRestore = { generation: before.generation, ran: running !== null };
  let loaded: Qmp | null = null;
  try {
    restoring.begin(work);
    failpoint("vm-restore.marked");
    if (running !== null) {
      await running.run("stop", undefined, MOVE_MS);
      const hasTap = before.hardware.nics.some(({ network }) => network === "tap");
      if (hasTap || load === null) await endQemu(machine.live);
    }
    failpoint("vm-restore.paused");
    renameSync(machine.live, machine.old);
    failpoint("vm-restore.half");
    renameSync(machine.next, machine.live);
    fsyncDirectory(machine.folder);
    failpoint("vm-restore.exchanged");
    loaded = load === null ? null : await load();
    failpoint("vm-restore.loaded");
    machine.write(after);
  } catch (error) {
    loaded?.close();
    running?.close();
    await takeBack(machine, before, work);
    restoring.end();
    throw error;
  }
  failpoint("vm-restore.committed");
  restoring.end();
  failpoint("vm-restore.record-removed");
  running?.close();
  try {
    await endQemu(machine.old);
    removeAll(machine.old);
  } catch {
    // The next operation on the machine removes the old set.
  }
  return loaded;
}

export const MACHINE_RESTORE: Told = {
  kind: "machine-restore",
  where: "`restoring.json` of a machine",
  steps: [
    "a full set of files is staged in `live.next`",
    "the record: the machine's generation, and whether its guest runs",
    "the guest is paused; `live` becomes `live.old`, `live.next` becomes `live`; the state is loaded",
    "● the machine's own record, with a new generation",
    "the record and the old set are removed",
  ],
  before: "puts the old set back; a guest that still waits goes on, else the machine is in the state `error`",
  after: "removes the record and the old set",
};

/** Returns the restore that a killed command has not committed; null if there is none. */
function undecided({ restoring }: Machine, { generation }: MachineRecord): MachineRestore | null {
  const work = restoring.read();
  return work?.generation === generation ? work : null;
}

/** Puts the old set of files back. A guest that still waits goes on; else the machine is in the state `error`. */
async function takeBack(machine: Machine, record: MachineRecord, { ran }: MachineRestore): Promise<MachineRecord> {
  // A commit that failed may have replaced the record. The old generation says that the old files count, moved or not.
  machine.write(record);
  if (existsSync(machine.old)) {
    await endQemu(machine.live);
    removeAll(machine.live);
    renameSync(machine.old, machine.live);
    fsyncDirectory(machine.folder);
  }
  if (processIn(machine.live) !== null) {
    try {
      using running = await runningIn(machine.live);
      if (running !== null) await resume(running);
    } catch {
      // The next operation resumes or ends a guest that does not respond now.
    }
  } else if (ran)
    return failed(
      machine,
      record,
      "the machine ended during a restore that was then interrupted; it has its disks from before the restore",
    );
  return record;
}
