import { randomBytes } from "node:crypto";
import { existsSync, lstatSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { advice, CairnError, line, word } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { Hardware, MachineNames } from "../../formats/machine/machine.ts";
import { fsyncDirectory, readSmallFile, TEMPORARY_PREFIX, temporaryName } from "../../fs/durable.ts";
import { acquireLock, type Lock, lockHolder } from "../../fs/lock.ts";
import { parseOwner } from "../../fs/lock-owner.ts";
import { removeAll, requireUnmounted } from "../../fs/remove-all.ts";
import type { MachineRestore } from "../../formats/records/unfinished.ts";
import type { Told } from "../../fs/unfinished.ts";
import { diskSize, removeUnusedBlobs } from "./blobs.ts";
import { linkWithoutService, tell, type Renewed } from "./identity.ts";
import {
  decodeRecord,
  encodeRecord,
  hasOpenFiles,
  Machine,
  machinesIn,
  type MachineRecord,
  type OperationOptions,
  PID_FILE,
  processIn,
  sharedFile,
} from "./machine.ts";
import { openForwards } from "./network.ts";
import { endQemu, howEnded, MOVE_MS, quitQemu, resume, runningIn, statusOf, waitUntilGone } from "./qemu.ts";
import type { Qmp } from "./qmp.ts";
import { forgetMemory, growDisks, newGeneration, renewNics } from "./state.ts";

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
  // A restore that was taken back has resumed its guest.
  if (ends && processIn(machine.live) !== null) await quitQemu(machine.live);
  const record = machine.read();
  const isLeft = record.foreignNics || record.identity !== null;
  return await work(machine, isLeft && purpose !== "stop" && purpose !== "rm" ? await mended(machine, record) : record);
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
    // A command was killed after the commit of a hibernation, or before the commit of a start: its QEMU may still run.
    await endQemu(machine.live);
    return record;
  }
  // A hibernation may have been killed before its commit. Without a mapped memory the guest uses the memory in `live`.
  forgetMemory(machine, record.mapped === null);
  let status = "";
  try {
    using qmp = await runningIn(machine.live);
    if (qmp === null) return { ...withGrownDisks(machine, record), error: record.error ?? abruptEnd(machine) };
    status = await statusOf(qmp);
    if (status === "inmigrate") {
      await endQemu(machine.live);
      return failed(machine, record, "its saved state was not loaded completely");
    }
    // Also resumes a running guest: a migration in progress would stop it at its end.
    if (status === "running" || FROZEN.has(status)) await resume(qmp);
    return await openForwards(qmp, machine, record);
  } catch (error) {
    if (error instanceof CairnError && error.code === "conflict") return { ...record, error: error.message };
    return {
      ...record,
      error: `its guest may be stopped${status && `, QEMU says ${status}`}: ${(error as Error).message}; if QEMU hangs, end it: cairn vm stop --force ${machine.name}`,
    };
  }
}

/** Returns the reason if the last QEMU of a machine ended without its guest; null if QEMU runs, or ended in order and so removed its pid file. */
export function abruptEnd({ live }: Machine): string | null {
  if (!existsSync(join(live, PID_FILE)) || processIn(live) !== null) return null;
  return howEnded(live)?.why ?? "its QEMU was killed with its shell, or the host went down, while the guest ran";
}

/** Finishes a clone or restore that a killed command left: the guest's identity, then its network devices. Returns the machine's new record. */
async function mended(machine: Machine, record: MachineRecord): Promise<MachineRecord> {
  let told = record;
  try {
    using qmp = await runningIn(machine.live);
    if (qmp !== null && record.identity !== null) told = (await tell(qmp, machine, record)).record;
  } catch {
    // The links stay down, and the next operation tries again.
  }
  return told.foreignNics ? await ownNics(machine, told) : told;
}

/** Gives a clone's guest its own network devices, after it released the present ones, and opens their forwards. Returns the machine's new record. */
async function ownNics(machine: Machine, record: MachineRecord): Promise<MachineRecord> {
  let known = record;
  try {
    using qmp = await runningIn(machine.live);
    if (qmp === null || !(await renewNics(qmp, record.hardware))) return record;
    known = { ...record, foreignNics: false };
    machine.write(known);
    return await openForwards(qmp, machine, known);
  } catch {
    // Before the write the links of the present devices are down. The next operation tries again, also for forwards.
    return known;
  }
}

/**
 * Runs a guest whose state is loaded, opens its forwards, and gives the guest its identity and its own network devices.
 * Returns the answer of the guest's service.
 */
export async function goOn(
  machine: Machine,
  record: MachineRecord,
  loaded: Qmp | null,
  { onWarning }: { onWarning?: ((message: string) => void) | undefined },
): Promise<Renewed | null> {
  if (loaded === null) return null;
  using qmp = loaded;
  failpoint("vm-go-on.waits");
  await linkWithoutService(qmp, record);
  await resume(qmp);
  failpoint("vm-go-on.runs");
  const opened = await openForwards(qmp, machine, record).catch((error: unknown) => {
    onWarning?.((error as Error).message);
    return record;
  });
  const { record: known, told } = await tell(qmp, machine, opened);
  qmp.close();
  if (!record.foreignNics || !(await ownNics(machine, known)).foreignNics) return told;
  onWarning?.(
    `the guest of ${machine.name} does not release its network devices, which keep their old addresses and have no link: reboot it with cairn vm stop and start`,
  );
  return told;
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
export function requireFreeName(root: string, name: string): void {
  const machine = new Machine(root, name);
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
    identity: null,
    sshKeys: [],
  };
}

const SECTOR = 512;
/** Rounds the size of a disk up: QEMU counts disks in sectors. */
export const inSectors = (bytes: number): number => Math.ceil(bytes / SECTOR) * SECTOR;

/** Throws `usage` for a record that could not be decoded again. */
function requireReadable(record: MachineRecord): void {
  try {
    decodeRecord(encodeRecord(record), "the machine");
  } catch (error) {
    throw new CairnError("usage", (error as Error).message);
  }
}

/** Powers a hibernated machine off: the next start boots it. */
export function powerOff(machine: Machine, record: MachineRecord): void {
  machine.write({ ...record, state: "stopped" });
  forgetMemory(machine);
}

/** New hardware of a machine. An absent member does not change. */
interface Changes {
  memory?: number | undefined;
  cpus?: number | undefined;
  /** Bytes of the first disk. */
  diskSize?: number | undefined;
  /** Digest of the disc in the CD drive; null: no CD drive. */
  cdrom?: string | null | undefined;
}

/**
 * Changes the hardware of a stopped machine. Steps: the disk grows; ● the machine's record. If the command is killed
 * between both, the next operation records the disk's new size.
 */
export async function changeMachine(machine: Machine, record: MachineRecord, changes: Changes): Promise<void> {
  const { hardware } = record;
  if ((record.state !== "created" && record.state !== "stopped") || hasOpenFiles(machine.live))
    throw new CairnError("conflict", `${machine.name} is not stopped, so its hardware cannot change`, {
      // A stop of a hibernated machine stops nothing, and a forced one drops its memory.
      hint:
        record.state === "hibernated"
          ? advice`let its guest go on, and stop the machine then: ${line(`vm start ${machine.name}`, "startMachine", word("machines"), machine.name)}`
          : advice`stop the machine first: ${line(`vm stop ${machine.name}`, "stopMachine", word("machines"), machine.name)}`,
    });
  const { memory = hardware.memory, cpus = hardware.cpus, diskSize: size, cdrom = hardware.cdrom } = changes;
  const disks = [...hardware.disks];
  if (size !== undefined) {
    const [first] = disks;
    if (first === undefined) throw new CairnError("usage", `${machine.name} has no disk`);
    disks[0] = { ...first, size: inSectors(size) };
    if (disks[0].size < first.size)
      throw new CairnError("refused", `the disk of ${machine.name} has ${first.size} bytes, and a disk cannot shrink`);
  }
  const changed: MachineRecord = { ...record, hardware: { ...hardware, memory, cpus, disks, cdrom } };
  requireReadable(changed);
  await growDisks(machine, changed);
  failpoint("vm-set.grown");
  machine.write(changed);
}

/** Records the size of each disk of a stopped machine that a killed command made larger. Returns the record. */
function withGrownDisks(machine: Machine, record: MachineRecord): MachineRecord {
  let grown = record;
  try {
    const disks = record.hardware.disks.map((disk, i) => ({
      ...disk,
      size: Math.max(disk.size, diskSize(machine.live, i)),
    }));
    grown = { ...record, hardware: { ...record.hardware, disks } };
    if (!isDeepStrictEqual(grown, record)) machine.write(grown);
  } catch {
    // A damaged disk is reported by the operation that needs the disk.
  }
  return grown;
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

/**
 * Returns the paths of files that a killed operation left of a machine; none while an operation holds its lock. If a
 * restore was killed, returns only the restore's record, since the machine may need the other files.
 */
export function leftOf(machine: Machine): string[] {
  if (lockHolder(machine.lock) !== null) return [];
  if (isUnfinished(machine)) return readdirSync(machine.folder).length > 0 ? [machine.folder] : [];
  if (!machine.exists()) return [];
  if (machine.restoring.isBegun) return [machine.restoring.path];
  return [machine.next, machine.old, ...temporariesOf(machine)].filter(existsSync);
}

/** Finishes or takes back a killed operation on a machine, as the next operation does. Throws `busy`. */
export async function removeLeft(machine: Machine): Promise<void> {
  const wanted = { purpose: "doctor", timeoutMs: 0 };
  if (machine.exists()) {
    using _lock = await acquireLock(machine.lock, wanted);
    await settle(machine).catch((error: unknown) => {
      // Its creation was killed, and its files have been removed.
      if (!(error instanceof CairnError) || error.code !== "not_found") throw error;
    });
    await removeUnusedBlobs(machine.root);
    return;
  }
  using _names = await acquireLock(sharedFile(machine.root, "names.lock"), wanted);
  if (leftOf(machine).length > 0) await removeFolder(machine);
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
  // The state may have other host keys.
  rmSync(machine.knownHosts, { force: true });
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
