import { randomBytes, randomUUID } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import {
  BLOBS,
  blobsOf,
  decodeSaved,
  DEVICES,
  diskFile,
  encodeSaved,
  filesOf,
  type Hardware,
  MEMORY,
  type Nic,
  type SavedMachine,
  SIDECAR,
} from "../../formats/machine/machine.ts";
import { durableWrite, fsyncDirectory } from "../../fs/durable.ts";
import { flushFileSystem } from "../../fs/linux/flush.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { printablePath } from "../../fs/safe-path.ts";
import { addBlob, checkBase, checkDisk, copyFiles } from "./blobs.ts";
import type { Host } from "./host.ts";
import { blobFile, type Machine, type MachineRecord } from "./machine.ts";
import {
  devicesOf,
  endQemu,
  migrated,
  nicDevice,
  resume,
  type Running,
  setMigration,
  startQemu,
  statusOf,
} from "./qemu.ts";
import type { Qmp } from "./qmp.ts";

/** A machine's state: taken into a folder, and brought back from one. */

const MOVE_MS = 120_000;
const RELEASE_MS = 5000;

export interface Taken {
  saved: SavedMachine;
  /** Time in which the guest did not run; 0 for one that did not run before. */
  pausedMs: number;
}

/**
 * Takes the state of a machine into an empty folder. A guest that runs is paused while its devices, memory and disks are
 * copied, and runs again whatever happens. Its memory is copied as it lies in a shared file; memory that is mapped privately
 * is moved by QEMU while the guest runs, and made such a file afterwards.
 */
export async function takeState(
  host: Host,
  machine: Machine,
  record: MachineRecord,
  { running, into, signal }: { running: Running | null; into: string; signal?: AbortSignal | undefined },
): Promise<Taken> {
  const { hardware, name, description, image } = record;
  const disks = hardware.disks.map((_, i) => join(machine.live, diskFile(i)));
  let pausedMs = 0;
  if (running === null) await copyFiles(disks, into, { signal });
  else {
    pausedMs = await (record.mapped === null
      ? takeShared(machine, running.qmp, disks, into)
      : takePrivate(machine, running.qmp, disks, into));
    failpoint("vm-save.resumed");
    if (record.mapped !== null) await makeShared(host, machine, record, into);
  }
  const kept = join(into, BLOBS);
  mkdirSync(kept);
  const have = (digest: string): string => join(machine.saved, BLOBS, digest);
  const missing = blobsOf(hardware).filter((each) => !existsSync(have(each)));
  await copyFiles(
    missing.map((each) => blobFile(machine.root, each)),
    kept,
    { signal },
  );
  const saved: SavedMachine = {
    id: randomBytes(16).toString("hex"),
    name,
    description,
    image,
    hypervisorVersion: host.version,
    hasMemory: running !== null,
    hardware,
    devices: devicesOf(hardware),
  };
  return { saved, pausedMs };
}

/** Runs some work while the guest is paused; the milliseconds of the pause. */
async function whilePaused(qmp: Qmp, pause: () => Promise<void>, work: () => Promise<void>): Promise<number> {
  let since = 0;
  const stopped = qmp.event(({ event }) => {
    if (event !== "STOP") return false;
    since ||= performance.now();
    return true;
  }, MOVE_MS * 2);
  try {
    await pause();
    failpoint("vm-save.paused");
    await work();
  } finally {
    await resume(qmp);
  }
  const until = performance.now();
  await stopped;
  return until - since;
}

async function takeShared(machine: Machine, qmp: Qmp, disks: string[], into: string): Promise<number> {
  await setMigration(qmp, true);
  const pause = async (): Promise<void> => {
    await qmp.run("stop");
    await qmp.run("migrate", { uri: `exec:cat > ${DEVICES}` });
    await migrated(qmp, MOVE_MS);
  };
  // The disks are QEMU's no longer once its state has moved, until the guest runs again.
  return await whilePaused(qmp, pause, async () => {
    const memory = copyFiles([join(machine.live, MEMORY)], into, { shared: false });
    await Promise.all([memory, copyFiles(disks, into)]);
    renameSync(join(machine.live, DEVICES), join(into, DEVICES));
  });
}

const STREAM = "stream";

async function takePrivate(machine: Machine, qmp: Qmp, disks: string[], into: string): Promise<number> {
  await setMigration(qmp, false);
  const pause = async (): Promise<void> => {
    await qmp.run("migrate", { uri: `exec:cat > ${STREAM}` });
    // A guest that writes faster than is copied is paused after a while, so that it ends.
    await migrated(qmp, MOVE_MS, async () => qmp.run("stop"));
  };
  const pausedMs = await whilePaused(qmp, pause, async () => copyFiles(disks, into));
  renameSync(join(machine.live, STREAM), join(into, STREAM));
  return pausedMs;
}

/** Makes a file of memory of a stream: a second QEMU, whose memory is a shared file, takes it in and runs nothing. */
async function makeShared(host: Host, machine: Machine, record: MachineRecord, folder: string): Promise<void> {
  const { qmp } = await startQemu(host, machine, record, { folder, incoming: true, mapped: null });
  try {
    await setMigration(qmp, false);
    await qmp.run("migrate-incoming", { uri: `exec:cat ${STREAM}` });
    await migrated(qmp, MOVE_MS);
    await setMigration(qmp, true);
    await qmp.run("migrate", { uri: `exec:cat > ${DEVICES}` });
    await migrated(qmp, MOVE_MS);
  } finally {
    qmp.close();
    await endQemu(folder);
    for (const name of [STREAM, "qemu.pid", "qemu.log", "qmp.sock", "console.sock", "console.log"])
      rmSync(join(folder, name), { force: true });
  }
}

/**
 * Puts a taken state in the place of the one that was saved last. Its description goes first and comes last: without it a
 * folder is no saved machine.
 */
export async function giveState(machine: Machine, { saved }: Taken, from: string): Promise<void> {
  await flushFileSystem(from);
  mkdirSync(join(machine.saved, BLOBS), { recursive: true });
  rmSync(join(machine.saved, SIDECAR), { force: true });
  failpoint("vm-save.begun");
  for (const name of filesOf(saved)) {
    const [source, target] = [join(from, name), join(machine.saved, name)];
    if (!existsSync(source)) continue;
    // A guest's memory and disks have its secrets.
    chmodSync(source, 0o600);
    renameSync(source, target);
  }
  const wanted = new Set(filesOf(saved));
  const names = [MEMORY, DEVICES, ...readdirSync(join(machine.saved, BLOBS)).map((name) => `${BLOBS}/${name}`)];
  for (const name of names) if (!wanted.has(name)) rmSync(join(machine.saved, name), { force: true });
  failpoint("vm-save.moved");
  durableWrite(join(machine.saved, SIDECAR), encodeSaved(saved), { mode: 0o644 });
  fsyncDirectory(machine.saved);
}

/** The state that lies in a folder; its description was read, its disks lead nowhere. Throws `damaged`, `refused`, `newer_version`. */
export function readState(folder: string): SavedMachine {
  let bytes: Buffer;
  try {
    bytes = readRegular(join(folder, SIDECAR), { limit: 4 << 20 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    throw new CairnError("usage", `${printablePath(folder)} holds no saved machine`, {
      hint: `a folder of files is brought in by: cairn import --from-dir`,
    });
  }
  const saved = decodeSaved(bytes);
  for (const name of filesOf(saved))
    if (!existsSync(join(folder, name)))
      throw new CairnError("damaged", `${printablePath(join(folder, name))} is missing`, { details: { path: name } });
  for (const [i, { size, base }] of saved.hardware.disks.entries()) {
    checkDisk(join(folder, diskFile(i)), size);
    if (base !== null) checkBase(join(folder, BLOBS, base));
  }
  return saved;
}

/** Throws `refused` with what differs where this QEMU is not one that can take a state. */
export function checkFits(host: Host, saved: SavedMachine): void {
  if (!saved.hasMemory) return;
  const series = (version: string): string => version.split(".").slice(0, 2).join(".");
  const here = devicesOf(saved.hardware);
  const other = saved.devices.find((each, i) => each !== here[i]) ?? here[saved.devices.length];
  const why =
    series(saved.hypervisorVersion) !== series(host.version)
      ? `QEMU ${saved.hypervisorVersion} saved it, and this is ${host.version}`
      : saved.hardware.accelerator !== host.accelerator
        ? `it ran under ${saved.hardware.accelerator}, and here is ${host.accelerator}`
        : other === undefined
          ? null
          : `its devices are not those that this program attaches: ${other}`;
  if (why === null) return;
  throw new CairnError("refused", `the state of ${saved.name} does not fit this machine's QEMU: ${why}`, {
    hint: "a state with memory needs the QEMU that saved it; one that was saved when the machine was stopped does not",
  });
}

export interface Bring {
  from: string;
  into: string;
  /** SHA-256 of its memory. */
  memory: string;
  /** Network devices that the machine is to have. */
  nics: readonly Nic[];
  signal?: AbortSignal | undefined;
}

/** Puts the files of a state into a folder of a machine, which QEMU can be started in; the digest of what it is to map as its memory, or null. */
export async function bringState(
  machine: Machine,
  saved: SavedMachine,
  { from, into, memory, nics, signal }: Bring,
): Promise<string | null> {
  for (const digest of blobsOf(saved.hardware))
    await addBlob(machine.root, join(from, BLOBS, digest), { digest, signal });
  mkdirSync(into, { mode: 0o700 });
  const own = [...saved.hardware.disks.map((_, i) => diskFile(i)), ...(saved.hasMemory ? [DEVICES] : [])];
  // A second QEMU, which mapped memory needs when it is saved, cannot have the same tap.
  const isMapped = saved.hasMemory && nics.every(({ network }) => network === "user");
  if (saved.hasMemory && !isMapped) own.push(MEMORY);
  await copyFiles(
    own.map((name) => join(from, name)),
    into,
    { signal },
  );
  return isMapped ? await addBlob(machine.root, join(from, MEMORY), { digest: memory, signal }) : null;
}

/** Starts QEMU with a state, and has it wait: it is whole and does not run. */
export async function loadState(host: Host, machine: Machine, record: MachineRecord, folder: string): Promise<Running> {
  const running = await startQemu(host, machine, record, { folder, incoming: true, mapped: record.mapped });
  const { qmp } = running;
  try {
    await setMigration(qmp, true);
    await qmp.run("migrate-incoming", { uri: `exec:cat ${DEVICES}` });
    await migrated(qmp, MOVE_MS);
    const status = await statusOf(qmp);
    if (status !== "paused" && status !== "prelaunch")
      throw new CairnError("io", `the machine has its state, and is ${status}`);
    // What it had of another machine's network sends nothing.
    if (record.foreignNics)
      for (const i of record.hardware.nics.keys()) await qmp.run("set_link", { name: `nic${i}`, up: false });
    return running;
  } catch (error) {
    qmp.close();
    await endQemu(folder);
    throw error;
  }
}

/** Gives a running guest network devices with addresses of its own, once it lets the others go; false when it does not. */
export async function renewNics(qmp: Qmp, { nics }: Hardware): Promise<boolean> {
  const gone = nics.map(async (_, i) =>
    qmp.event(({ event, data }) => event === "DEVICE_DELETED" && data?.["device"] === `nic${i}`, RELEASE_MS),
  );
  for (const i of nics.keys()) await qmp.run("device_del", { id: `nic${i}` });
  if ((await Promise.all(gone)).includes(null)) return false;
  for (const i of nics.keys()) await qmp.run("device_add", nicDevice({ nics }, i));
  return true;
}

/** A fresh generation, by which a guest knows that it is another than it was. */
export const newGeneration = (): string => randomUUID();

/** A fresh address of a network device, in QEMU's own range. */
export function newMac(): string {
  return ["52", "54", "00", ...randomBytes(3).toString("hex").match(/../g)!].join(":");
}
