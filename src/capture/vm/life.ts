import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, realpathSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { type Hardware, isTapName, type MachineNames, type Nic } from "../../formats/machine/machine.ts";
import { fsyncDirectory, TEMPORARY_PREFIX } from "../../fs/durable.ts";
import { acquireLock, type Lock, lockHolder } from "../../fs/lock.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { printablePath } from "../../fs/safe-path.ts";
import { addBlob, addImage, imageSize, newDisk, removeUnusedBlobs, shareBlobs } from "./blobs.ts";
import type { Host } from "./host.ts";
import { Machine, machinesFolder, machinesIn, type MachineRecord, processIn, sharedFile } from "./machine.ts";
import { endQemu, resume, runningIn, type Running, startQemu, statusOf, waitUntilGone } from "./qemu.ts";
import { newGeneration, newMac } from "./state.ts";

/** The life of machines: each is changed by one operation at a time, and what a killed one left is settled by the next. */

export interface OperationOptions {
  signal?: AbortSignal | undefined;
  lockTimeoutMs?: number | undefined;
}

/** Does something with a machine that nobody else changes meanwhile. Throws `not_found`, `busy`. */
export async function withMachine<T>(
  root: string,
  name: string,
  purpose: string,
  { signal, lockTimeoutMs }: OperationOptions,
  work: (machine: Machine, record: MachineRecord) => Promise<T>,
): Promise<T> {
  const machine = new Machine(existsSync(root) ? realpathSync(root) : root, name);
  machine.read();
  using _lock = await acquireLock(machine.lock, { purpose: `vm ${purpose}`, signal, timeoutMs: lockTimeoutMs });
  return await work(machine, await settle(machine));
}

/** Statuses of a guest that somebody stopped and did not start again. */
const FROZEN = new Set(["paused", "postmigrate", "prelaunch", "finish-migrate"]);

/** Ends what an operation that was killed has begun: nothing of it is left, or all of it. */
async function settle(machine: Machine): Promise<MachineRecord> {
  let record = machine.read();
  if (record.state === "creating") {
    await endQemu(machine.live);
    removeAll(machine.folder);
    throw new CairnError("not_found", `${machine.name} was never finished, and is removed`, { hint: "make it again" });
  }
  if (record.swapping !== null) record = await takeBack(machine, record);
  for (const leftover of [machine.next, machine.old, ...temporariesOf(machine)]) {
    if (!existsSync(leftover)) continue;
    await endQemu(leftover);
    removeAll(leftover);
  }
  const running = await runningIn(machine.live);
  if (running === null) return record;
  using qmp = running.qmp;
  const status = await statusOf(qmp);
  if (FROZEN.has(status)) await resume(qmp);
  if (status !== "inmigrate") return record;
  await endQemu(machine.live);
  return failed(machine, record, "its state was never loaded");
}

function temporariesOf(machine: Machine): string[] {
  return readdirSync(machine.folder)
    .filter((name) => name.startsWith(TEMPORARY_PREFIX))
    .map((name) => join(machine.folder, name));
}

function failed(machine: Machine, record: MachineRecord, why: string): MachineRecord {
  const broken: MachineRecord = { ...record, state: "error", error: why, swapping: null };
  machine.write(broken);
  return broken;
}

/** Makes a new machine, whose files are made by `fill` in its folder `live`. Its record becomes valid last. Throws `already_exists`. */
export async function makeMachine(
  root: string,
  record: MachineRecord,
  options: OperationOptions,
  fill: (machine: Machine) => Promise<MachineRecord>,
): Promise<MachineRecord> {
  const machine = new Machine(machinesFolder(root), record.name);
  using _lock = await claimName(machine, record, options);
  try {
    failpoint("vm-create.begun");
    const made = await fill(machine);
    failpoint("vm-create.filled");
    machine.write(made);
    fsyncDirectory(machine.root);
    return made;
  } catch (error) {
    await endQemu(machine.live);
    removeAll(machine.folder);
    throw error;
  }
}

/** Takes a name for a machine that is being made, and its lock; what a killed command left of one goes. */
async function claimName(
  machine: Machine,
  record: MachineRecord,
  { signal, lockTimeoutMs }: OperationOptions,
): Promise<Lock> {
  // A folder without a lock or a record is seen by nobody who does not have this.
  using _names = await acquireLock(sharedFile(machine.root, "names.lock"), {
    purpose: "vm create",
    signal,
    timeoutMs: lockTimeoutMs,
  });
  if (existsSync(machine.folder)) {
    const isUnfinished = !machine.exists() || machine.read().state === "creating";
    if (!isUnfinished || lockHolder(machine.lock) !== null)
      throw new CairnError("already_exists", `there is a machine ${machine.name} already`, {
        hint: "choose another name",
      });
    await endQemu(machine.live);
    removeAll(machine.folder);
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
  /** Path of a disk image that its first disk begins as. */
  image: string | null;
  /** Bytes of each disk; the first at least as large as the image, null: as large as that. */
  disks: readonly (number | null)[];
  kernel: string | null;
  initrd: string | null;
  append: string;
  /** `user`, or the name of a tap that is there. */
  nics: readonly string[];
}

/** A network device with an address of its own: `user`, or the name of a tap. */
export function newNic(network: string): Nic {
  if (network === "user") return { network, tap: null, mac: newMac() };
  if (isTapName(network)) return { network: "tap", tap: network, mac: newMac() };
  throw new CairnError("usage", `${JSON.stringify(network.slice(0, 80))} is no name of a tap`);
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
    swapping: null,
    foreignNics: false,
  };
}

/** Makes a machine of an image, a kernel, or both. Steps: its name and a record that says so; its files; the record that counts. */
export async function createMachine(
  root: string,
  host: Host,
  given: NewMachine,
  options: OperationOptions,
): Promise<MachineRecord> {
  const { name, description, image, disks, nics, kernel, initrd, ...rest } = given;
  const { signal } = options;
  const folder = machinesFolder(root);
  using _shared = await shareBlobs(folder, options);
  const kept = async (file: string | null): Promise<string | null> =>
    file === null ? null : addBlob(folder, realpathSync(file), { signal });
  const base = image === null ? null : await addImage(folder, realpathSync(image), signal);
  const least = base === null ? 0 : imageSize(folder, base);
  const hardware: Hardware = {
    ...rest,
    machine: `pc-q35-${host.version.split(".").slice(0, 2).join(".")}`,
    accelerator: host.accelerator,
    kernel: await kept(kernel),
    initrd: await kept(initrd),
    disks: disks.map((size, i) => ({ size: size ?? least, base: i === 0 ? base : null })),
    nics: nics.map(newNic),
  };
  const small = hardware.disks.find(({ size }, i) => size < 512 || (i === 0 && size < least));
  if (small !== undefined)
    throw new CairnError(
      "usage",
      `a disk of ${small.size} bytes is too small${least > 0 ? ` for an image of ${least}` : ""}`,
    );
  const record = newRecord({ name, description, image: image ?? "" }, hardware);
  return await makeMachine(folder, record, options, async (machine) => {
    mkdirSync(machine.live, { mode: 0o700 });
    for (const [i, { size }] of hardware.disks.entries()) await newDisk(machine.live, i, size);
    return record;
  });
}

/** Boots a machine that does not run. Throws `conflict` for one that runs, `refused` for one in the state `error`. */
export async function startMachine(host: Host, machine: Machine, record: MachineRecord): Promise<void> {
  if (processIn(machine.live) !== null) throw new CairnError("conflict", `${machine.name} runs already`);
  if (record.state === "error")
    throw new CairnError("refused", `${machine.name} is in the state error: ${record.error}`, {
      hint: "bring a saved state back: cairn vm restore",
    });
  rmSync(join(machine.live, "memory"), { force: true });
  const { qmp } = await startQemu(host, machine, record, { folder: machine.live, incoming: false, mapped: null });
  try {
    await resume(qmp);
    // A guest that has booted afresh has the devices that it is given now.
    machine.write({ ...record, state: "stopped", mapped: null, foreignNics: false });
  } finally {
    qmp.close();
  }
}

/** Ends a machine: its guest is asked to, and after the deadline its power is taken, or at once. False: it did not run. */
export async function stopMachine(
  machine: Machine,
  { force, deadlineMs, signal }: { force: boolean; deadlineMs: number; signal?: AbortSignal | undefined },
): Promise<{ wasRunning: boolean; obeyed: boolean }> {
  const running = await runningIn(machine.live);
  if (running === null) return { wasRunning: false, obeyed: true };
  using qmp = running.qmp;
  if (!force) {
    await qmp.run("system_powerdown");
    if (await waitUntilGone(machine.live, deadlineMs, signal)) return { wasRunning: true, obeyed: true };
  }
  // What the guest has given to its disks is written before QEMU ends.
  if (processIn(machine.live) !== null) await qmp.run("quit").catch(() => undefined);
  if (!(await waitUntilGone(machine.live, 5000))) await endQemu(machine.live);
  return { wasRunning: true, obeyed: false };
}

/** Removes a machine that does not run, and what only it needed. */
export async function removeMachine(machine: Machine): Promise<void> {
  await endQemu(machine.live);
  const record = machine.read();
  machine.write({ ...record, state: "creating" });
  failpoint("vm-rm.begun");
  removeAll(machine.folder);
  fsyncDirectory(machine.root);
  await removeUnusedBlobs(machine.root);
}

/** A machine as it is seen: its record, and whether it runs; also one that an operation works on. */
export interface Seen {
  machine: Machine;
  record: MachineRecord;
  pid: number | null;
  /** An operation under way, in words; null: none. */
  operation: string | null;
}

/** Looks at a machine; one that a killed operation left is settled first, unless another works on it. Throws `not_found`. */
export async function lookAt(machine: Machine): Promise<Seen> {
  let record = machine.read();
  let operation: string | null = null;
  try {
    using _lock = await acquireLock(machine.lock, { purpose: "vm list", timeoutMs: 0 });
    record = await settle(machine);
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "busy") throw error;
    operation = lockHolder(machine.lock)?.purpose ?? "busy";
  }
  return { machine, record, pid: processIn(machine.live), operation };
}

/** Every machine of a folder; one that cannot be read is told of. */
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
 * Exchanges a machine's files for the full set in `next`. Steps: a marker; the guest is paused; the sets exchange names; the
 * state is loaded; the record is the commit; the old set goes. A failure before the commit puts the old set back, and its
 * guest goes on. A machine with a tap, which has one user, ends first and is left in the state `error` then.
 */
export async function swapState(
  machine: Machine,
  before: MachineRecord,
  after: MachineRecord,
  load: (() => Promise<Running>) | null,
): Promise<Running | null> {
  const running = await runningIn(machine.live);
  const marked: MachineRecord = { ...before, swapping: running === null ? "resting" : "running" };
  machine.write(marked);
  let loaded: Running | null = null;
  try {
    failpoint("vm-restore.marked");
    if (running !== null) {
      await running.qmp.run("stop");
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
    loaded?.qmp.close();
    running?.qmp.close();
    await takeBack(machine, marked);
    throw error;
  }
  failpoint("vm-restore.committed");
  running?.qmp.close();
  await endQemu(machine.old);
  removeAll(machine.old);
  return loaded;
}

/** Puts the old set of files back; its guest goes on where it still waits, and else the machine is in the state `error`. */
async function takeBack(machine: Machine, record: MachineRecord): Promise<MachineRecord> {
  if (existsSync(machine.old)) {
    await endQemu(machine.live);
    removeAll(machine.live);
    renameSync(machine.old, machine.live);
    fsyncDirectory(machine.folder);
  }
  const running = await runningIn(machine.live);
  if (running !== null) {
    using qmp = running.qmp;
    await resume(qmp);
  } else if (record.swapping === "running") {
    return failed(machine, record, "a restore did not end, after the machine had; its disks are those of before");
  }
  const back: MachineRecord = { ...record, swapping: null };
  machine.write(back);
  return back;
}

/** The path by which this process connects to the console of a machine. Throws `conflict` for one that does not run. */
export function consoleOf(machine: Machine): string {
  const pid = processIn(machine.live);
  if (pid === null)
    throw new CairnError("conflict", `${machine.name} does not run`, {
      hint: `what it said last is in ${printablePath(join(machine.live, "console.log"))}`,
    });
  return `/proc/${pid}/cwd/console.sock`;
}
