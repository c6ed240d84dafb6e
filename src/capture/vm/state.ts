import { randomBytes, randomUUID } from "node:crypto";
import {
  chmodSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { advice, CairnError, line, word } from "../../errors.ts";
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
  type SavedMachine,
  SIDECAR,
} from "../../formats/machine/machine.ts";
import { durableWrite, fsyncDirectory, readSmallFile } from "../../fs/durable.ts";
import { flushFileSystem } from "../../fs/linux/flush.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { checkDisk, checkImage, copyFiles, growDisk, moveFile, removeUnusedBlobs } from "./blobs.ts";
import type { Host } from "./host.ts";
import { setLinks } from "./identity.ts";
import { blobFile, type Machine, type MachineRecord } from "./machine.ts";
import {
  devicesOf,
  endQemu,
  hasRoom,
  isPaused,
  migrated,
  MOVE_MS,
  nicDevice,
  noRoom,
  orEnded,
  resume,
  RUN_FILES,
  setMigration,
  startQemu,
  statusOf,
} from "./qemu.ts";
import type { Qmp } from "./qmp.ts";

/** Saves a machine's state into a folder, and loads it into a machine. */

const BUSY_HOST_MS = 30_000;
/** Longest time that a guest is paused for the copy of its memory and disks. */
const COPY_MS = 300_000;

export interface Taken {
  saved: SavedMachine;
  /** Time for which the guest was stopped; 0 if it did not run before. */
  pausedMs: number;
}

interface Take {
  qmp: Qmp | null;
  /** An empty folder beside those of the machine. */
  into: string;
  /** The guest stays paused afterwards, unless this fails. */
  staysPaused?: boolean;
  signal?: AbortSignal | undefined;
}

/**
 * Takes the state of a machine into an empty folder. Pauses a running guest while its devices, memory and disks are
 * copied; it then runs again. Copies memory from its shared file; privately mapped memory is migrated by QEMU, under
 * KVM while the guest runs, and made a shared file afterwards.
 */
export async function takeState(host: Host, machine: Machine, record: MachineRecord, take: Take): Promise<Taken> {
  const { hardware, name, description, image } = record;
  const { qmp, into, signal } = take;
  let pausedMs = 0;
  const kept = record.state === "hibernated" ? hibernatedIn(machine) : null;
  if (qmp === null) {
    await growDisks(machine, record);
    const memory = kept === null ? [] : [MEMORY, DEVICES].map((file) => join(machine.live, file));
    await copyFiles([...disksOf(machine, hardware), ...memory], into, { signal });
  } else {
    pausedMs = await pausedFor(machine, record, { ...take, qmp });
    failpoint("vm-save.resumed");
    if (record.mapped !== null) await makeShared(host, machine, record, into);
  }
  const blobs = join(into, BLOBS);
  mkdirSync(blobs);
  const sizeOf = (file: string): number | undefined => statSync(file, { throwIfNoEntry: false })?.size;
  const missing = blobsOf(hardware)
    .map((digest) => ({ blob: blobFile(machine.root, digest), have: join(machine.saved, BLOBS, digest) }))
    .filter(({ blob, have }) => sizeOf(have) !== sizeOf(blob));
  await copyFiles(
    missing.map(({ blob }) => blob),
    blobs,
    { signal },
  );
  const saved: SavedMachine = {
    id: randomBytes(16).toString("hex"),
    name,
    description,
    image,
    hypervisorVersion: kept?.hypervisorVersion ?? host.version,
    hasMemory: qmp !== null || kept !== null,
    foreignNics: record.foreignNics,
    hardware,
    // A newer build may attach other devices than the build that took the hibernated state.
    devices: kept?.devices ?? devicesOf(hardware),
  };
  return { saved, pausedMs };
}

/** Makes the disks of a machine that does not run as large as its record says. */
export async function growDisks({ live }: Machine, { hardware: { disks } }: MachineRecord): Promise<void> {
  for (const [i, { size }] of disks.entries()) await growDisk(live, i, size);
}

const disksOf = (machine: Machine, { disks }: Hardware): string[] =>
  disks.map((_, i) => join(machine.live, diskFile(i)));
const STREAM = "stream";

/** Names a file for QEMU to write a state to. A shell renames the file at the end, since QEMU does not notice a shell that fails then. */
function toFile(folder: string, name: string): { uri: string } {
  const file = `../${basename(folder)}/${name}`;
  return { uri: `exec:cat > ${file}.part && mv ${file}.part ${file}` };
}

/** Migrates the state of devices, and of memory unless it is in a shared file, into a file. Throws `io`, `no_space`. */
async function moveOut(qmp: Qmp, folder: string, isShared: boolean): Promise<void> {
  const name = isShared ? DEVICES : STREAM;
  await setMigration(qmp, isShared);
  await qmp.run("migrate", toFile(folder, name), MOVE_MS);
  failpoint("vm-save.moving");
  try {
    // A guest that writes faster than it is copied is paused after a while, so that the migration ends.
    await migrated(qmp, MOVE_MS, async () => qmp.run("stop", undefined, MOVE_MS));
    const end = performance.now() + BUSY_HOST_MS;
    while (!existsSync(join(folder, name))) {
      if (performance.now() > end) throw new CairnError("io", "QEMU did not write the machine's state completely");
      await sleep(1);
    }
  } catch (error) {
    // QEMU does not say why its shell failed.
    if (hasRoom(folder)) throw error;
    throw noRoom(`save the machine's state in ${printablePath(folder)}`, error);
  }
}

/** Migrates and copies everything that must be of one moment. Returns the milliseconds for which the guest was stopped. */
async function pausedFor(
  machine: Machine,
  { hardware, mapped }: MachineRecord,
  { qmp, into, signal, staysPaused = false }: Take & { qmp: Qmp },
): Promise<number> {
  const isShared = mapped === null;
  // QEMU's emulation loses pages that a running guest writes during a migration, if the host is busy (seen with 7.2).
  const isStopped = isShared || hardware.accelerator === "tcg";
  let since = Number.NaN;
  using _events = qmp.listen((event) => {
    if (event?.event === "STOP" && Number.isNaN(since)) since = performance.now();
  });
  try {
    if (isStopped) {
      since = performance.now();
      await qmp.run("stop", undefined, MOVE_MS);
    }
    await moveOut(qmp, into, isShared);
    failpoint("vm-save.paused");
    const late = AbortSignal.timeout(COPY_MS);
    const within = AbortSignal.any([late, ...(signal === undefined ? [] : [signal])]);
    // After the migration QEMU does not use the disks until the guest runs again.
    const copies = [copyFiles(disksOf(machine, hardware), into, { signal: within })];
    if (isShared) copies.push(copyFiles([join(machine.live, MEMORY)], into, { shared: false, signal: within }));
    await Promise.all(copies).catch((error: unknown) => {
      if (!late.aborted || signal?.aborted === true) throw error;
      throw new CairnError(
        "io",
        `copying the machine took longer than ${COPY_MS / 1000} s, while its guest was paused`,
      );
    });
  } catch (error) {
    // If this fails, the watcher process resumes the guest once this process releases the machine.
    await resume(qmp).catch(() => undefined);
    throw error;
  }
  if (!staysPaused) await resume(qmp);
  return Number.isNaN(since) ? 0 : performance.now() - since;
}

/** Turns a migrated stream into a memory file: a second QEMU with shared memory loads it and runs nothing. */
async function makeShared(host: Host, machine: Machine, record: MachineRecord, folder: string): Promise<void> {
  const qmp = await startQemu(host, machine, record, { folder, incoming: true, mapped: null });
  await orEnded(folder, qmp, async () => {
    await setMigration(qmp, false);
    await qmp.run("migrate-incoming", { uri: `exec:cat ${STREAM}` }, MOVE_MS);
    await migrated(qmp);
    await moveOut(qmp, folder, true);
  });
  qmp.close();
  await endQemu(folder);
  for (const name of [STREAM, ...RUN_FILES]) rmSync(join(folder, name), { force: true });
}

/**
 * Replaces the last saved state by a taken one. Removes its description first and writes the new one last: without it
 * the folder is no saved machine.
 */
export async function giveState(machine: Machine, { saved }: Taken, from: string): Promise<void> {
  await flushFileSystem(from);
  mkdirSync(join(machine.saved, BLOBS), { recursive: true });
  rmSync(join(machine.saved, SIDECAR), { force: true });
  failpoint("vm-save.begun");
  const wanted = filesOf(saved);
  for (const name of wanted) {
    const source = join(from, name);
    // A blob that exists already was not copied.
    if (name.startsWith(`${BLOBS}/`) && !existsSync(source)) continue;
    // A guest's memory and disks contain secrets.
    chmodSync(source, 0o600);
    renameSync(source, join(machine.saved, name));
  }
  for (const name of readdirSync(machine.saved, { recursive: true, encoding: "utf8" }))
    if (name !== BLOBS && !wanted.includes(name)) removeAll(join(machine.saved, name));
  failpoint("vm-save.moved");
  durableWrite(join(machine.saved, SIDECAR), encodeSaved(saved), { mode: 0o644 });
  fsyncDirectory(machine.saved);
}

/**
 * Hibernates a machine. Its guest is paused since `takeState`, and `saved` of the machine has the state. Steps: memory,
 * devices and description of the state are copied beside the disks; ● the machine's record; QEMU is killed. The guest of
 * a hibernated machine runs only after another commit, so its disks do not change and still fit its memory.
 */
export async function hibernate(machine: Machine, record: MachineRecord, { saved }: Taken): Promise<void> {
  const { live } = machine;
  const memory = record.mapped === null ? [] : [MEMORY];
  try {
    await copyFiles(
      [DEVICES, ...memory].map((name) => join(machine.saved, name)),
      live,
    );
    durableWrite(join(live, SIDECAR), encodeSaved(saved));
    await flushFiles(live);
  } catch (error) {
    forgetMemory(machine, record.mapped === null);
    throw error;
  }
  failpoint("vm-hibernate.staged");
  machine.write({ ...record, state: "hibernated", error: null, mapped: null });
  failpoint("vm-hibernate.committed");
  await endQemu(live);
  if (record.mapped !== null) await removeUnusedBlobs(machine.root);
}

/** Returns the description of a hibernated machine's state. Throws `damaged` if a file of the state is missing or truncated: QEMU would make a memory file of zeros, and run the guest on its real disks. */
export function hibernatedIn({ live, name }: Machine): SavedMachine {
  const saved = savedIn(join(live, SIDECAR));
  const sizeOf = (file: string): number => {
    const facts = lstatSync(join(live, file), { throwIfNoEntry: false });
    return facts?.isFile() === true ? facts.size : 0;
  };
  if (saved !== null && sizeOf(MEMORY) === saved.hardware.memory && sizeOf(DEVICES) > 0) return saved;
  throw new CairnError(
    "damaged",
    `the memory of the hibernated machine ${name} is not complete; its disks are not affected`,
    {
      hint: advice`boot it from its disks without the memory: power it off, then start it: ${line(`vm stop --force ${name}`, "stopMachine", word("machines"), name, { force: true })}`,
    },
  );
}

/** Removes a hibernated guest's memory and devices. Its disks stay. `used`: a running guest uses the memory, which stays too. */
export function forgetMemory({ live }: Machine, used = false): void {
  for (const name of [SIDECAR, DEVICES, ...(used ? [] : [MEMORY])]) rmSync(join(live, name), { force: true });
}

/** Flushes the files of a folder to the disk. */
export async function flushFiles(folder: string): Promise<void> {
  const flush = async (name: string): Promise<void> => {
    await using file = await open(join(folder, name), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    await file.sync();
  };
  // Sockets have no content, and pid file and log matter only to this run.
  const names = readdirSync(folder).filter((name) => /\.qcow2$|^(?:devices|memory)$/.test(name));
  await Promise.all(names.map(flush));
  fsyncDirectory(folder);
}

/** The description of a saved machine, in a file; null if there is no file. Throws `damaged`, `newer_version`. */
export function savedIn(description: string): SavedMachine | null {
  const bytes = readSmallFile(description, 4 << 20);
  return bytes === null ? null : decodeSaved(bytes);
}

/** The saved state with these files: they exist, and its disks name no others. Throws as `savedIn`, `usage`, `refused`. */
export function readState(fileOf: (name: string) => string): SavedMachine {
  const saved = savedIn(fileOf(SIDECAR));
  if (saved === null)
    throw new CairnError("usage", `${printablePath(dirname(fileOf(SIDECAR)))} does not contain a saved machine`, {
      hint: advice`import a folder of files with: ${line("import --from", "importDirectory", word("from"), word("folder"))}`,
    });
  const wrong = (name: string, what: string): CairnError =>
    new CairnError("damaged", `${printablePath(fileOf(name))} ${what}`, { details: { path: name } });
  for (const name of filesOf(saved)) {
    const facts = lstatSync(fileOf(name), { throwIfNoEntry: false });
    if (facts?.isFile() !== true) throw wrong(name, facts === undefined ? "is missing" : "is not a regular file");
    if (name === MEMORY && facts.size !== saved.hardware.memory)
      throw wrong(name, `has ${facts.size} bytes, but the machine's memory has ${saved.hardware.memory}`);
  }
  checkDisks(fileOf, saved.hardware);
  for (const { base } of saved.hardware.disks) if (base !== null) checkImage(fileOf(`${BLOBS}/${base}`));
  return saved;
}

function checkDisks(fileOf: (name: string) => string, { disks }: Hardware): void {
  for (const [i, { size }] of disks.entries()) checkDisk(fileOf(diskFile(i)), size);
}

/** Throws `refused` with the differences if this QEMU cannot load a state. */
export function checkFits(host: Host, saved: SavedMachine): void {
  if (!saved.hasMemory) return;
  const series = (version: string): string => version.split(".").slice(0, 2).join(".");
  const here = devicesOf(saved.hardware);
  const other = saved.devices.find((each, i) => each !== here[i]) ?? here[saved.devices.length];
  const why =
    series(saved.hypervisorVersion) !== series(host.version)
      ? `QEMU ${saved.hypervisorVersion} saved it, and this host has ${host.version}`
      : saved.hardware.accelerator !== host.accelerator
        ? `it ran with ${saved.hardware.accelerator}, and this host has ${host.accelerator}`
        : other === undefined
          ? null
          : `its devices differ from those that Cairn attaches: ${other}`;
  if (why === null) return;
  throw new CairnError("refused", `the state of ${saved.name} does not fit this machine's QEMU: ${why}`, {
    hint: "restore it with the version of QEMU that saved it, or use a state that was saved while the machine was stopped",
  });
}

/** Words of Linux's own log, which are in its memory if the kernel was built to detect cloning (CONFIG_VMGENID). */
const RESEEDS = Buffer.from("crng reseeded due to virtual machine fork");

/**
 * Searches the memory of a saved guest, given in pieces, for a kernel that draws fresh randomness when its generation
 * id changes. Without one all clones of that memory draw the same random numbers.
 */
export class ReseedSearch {
  #found = false;
  /** The end of the last piece, in which a match may begin. */
  #rest = Buffer.alloc(0);

  get found(): boolean {
    return this.#found;
  }

  readonly look = (piece: Buffer): void => {
    if (this.#found) return;
    const border = Buffer.concat([this.#rest, piece.subarray(0, RESEEDS.length)]);
    this.#found = border.includes(RESEEDS) || piece.includes(RESEEDS);
    this.#rest = Buffer.from(piece.subarray(-RESEEDS.length));
  };
}

/** A saved machine and its files. The blobs are there already. */
export interface State {
  saved: SavedMachine;
  /** Returns the path of one of the state's files. */
  fileOf(name: string): string;
  /** True: the files of this machine alone are temporary, and can be moved. */
  isTemporary: boolean;
  /** SHA-256 of the blob to map as its memory; null if it has no memory, or gets its own. */
  mapped: string | null;
}

/** Puts the files of a state into a new folder of a machine, in which QEMU can be started. */
export async function bringState(
  { saved, fileOf, isTemporary, mapped }: State,
  into: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  mkdirSync(into, { mode: 0o700 });
  const own = saved.hardware.disks.map((_, i) => diskFile(i));
  if (saved.hasMemory) own.push(DEVICES);
  if (saved.hasMemory && mapped === null) own.push(MEMORY);
  if (isTemporary) for (const name of own) await moveFile(fileOf(name), join(into, name), signal);
  else await copyFiles(own.map(fileOf), into, { signal });
  // A user with write access to the source may have exchanged a file since it was checked.
  checkDisks((name) => join(into, name), saved.hardware);
}

/** Starts QEMU with a state, loaded but paused. */
export async function loadState(host: Host, machine: Machine, record: MachineRecord, folder: string): Promise<Qmp> {
  const qmp = await startQemu(host, machine, record, { folder, incoming: true, mapped: record.mapped });
  await orEnded(folder, qmp, async () => {
    await setMigration(qmp, true);
    await qmp.run("migrate-incoming", { uri: `exec:cat ${DEVICES}` }, MOVE_MS);
    await migrated(qmp);
    if (!(await isPaused(qmp)))
      throw new CairnError("io", `the machine has loaded its state, but its status is ${await statusOf(qmp)}`);
    // Nothing is sent with the addresses, names and random numbers of another machine.
    if (record.foreignNics || record.identity !== null) await setLinks(qmp, record.hardware, false);
  });
  return qmp;
}

/**
 * Gives a running guest network devices with its own addresses, once it has released the present ones; false if it does
 * not release them. Networks in user mode begin anew, since their state keeps the guest's first address for the device
 * of the state; their forwards are closed then.
 */
export async function renewNics(qmp: Qmp, { nics }: Hardware): Promise<boolean> {
  const plugged = async (): Promise<Set<string>> => {
    const found = (await qmp.run("qom-list", { path: "/machine/peripheral" })) as { name: string }[];
    return new Set(found.map(({ name }) => name));
  };
  const names = [...nics.keys()].map((i) => `nic${i}`);
  const before = await plugged();
  const present = names.filter((name) => before.has(name));
  const gone = present.map(async (name) =>
    qmp.event(({ event, data }) => event === "DEVICE_DELETED" && data?.["device"] === name, BUSY_HOST_MS),
  );
  // QEMU may refuse to unplug a device that it was asked to unplug before.
  for (const name of present) await qmp.run("device_del", { id: name }).catch(() => undefined);
  await Promise.all(gone);
  const left = await plugged();
  const isReleased = present.every((name) => !left.has(name));
  if (isReleased) {
    const users = [...nics.entries()].filter(([, { network }]) => network === "user");
    // All go before the first one comes: QEMU counts the states of networks in this order.
    for (const [i] of users) await qmp.run("netdev_del", { id: `net${i}` }).catch(() => undefined);
    for (const [i, { internet }] of users)
      await qmp.run("netdev_add", { type: "user", id: `net${i}`, restrict: !internet });
  }
  for (const [i, name] of names.entries()) if (!left.has(name)) await qmp.run("device_add", nicDevice({ nics }, i));
  return isReleased;
}

/** A fresh generation id, from which a guest learns that it was cloned or restored. */
export const newGeneration = (): string => randomUUID();

/** A fresh address of a network device, in QEMU's own range. */
export function newMac(): string {
  return ["52", "54", "00", ...randomBytes(3).toString("hex").match(/../g)!].join(":");
}
