import { closeSync, existsSync, lstatSync, readdirSync, readlinkSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { advice, CairnError, line, word } from "../../errors.ts";
import { Fields, parseJson } from "../../formats/fields.ts";
import {
  decodeHardware,
  decodeNames,
  type Hardware,
  isMachineName,
  MACHINE_VERSION,
  type MachineNames,
} from "../../formats/machine/machine.ts";
import { earlierWork, type MachineRestore, workOf } from "../../formats/records/unfinished.ts";
import { durableWrite, readSmallFile } from "../../fs/durable.ts";
import { kernelLockState } from "../../fs/linux/kernel-lock.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { Unfinished } from "../../fs/unfinished.ts";
import { removeLeftovers } from "../../fs/work-directory.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";

/** Machines of one folder: their paths and records. */

const RECORD = "machine.json";
const RECORD_LIMIT = 4 << 20;

/** States of a machine while no QEMU runs for it. */
const RESTING = ["creating", "created", "stopped", "hibernated", "error"] as const;

export interface MachineRecord extends MachineNames {
  id: string;
  createdAt: string;
  state: (typeof RESTING)[number];
  /** Reason of the state `error`. */
  error: string | null;
  hardware: Hardware;
  /** Keys of the machine's saved states, oldest first. */
  lineage: string[];
  /** Generation id that the guest sees, a UUID; a new one makes the guest draw fresh randomness. */
  generation: string;
  /** SHA-256 of the file that is mapped privately as its memory; null: the machine has its own memory file. */
  mapped: string | null;
  /** The guest still has the network devices of its clone's source; their links are down. */
  foreignNics: boolean;
  /**
   * The part of the identity that the guest's service must set before the links of the network devices go up: `same`
   * for clock and random numbers, `new` for names and keys too; null: none.
   */
  identity: "same" | "new" | null;
  /** Paths of the files with SSH keys that were given for the machine. */
  sshKeys: readonly string[];
}

export interface OperationOptions {
  signal?: AbortSignal | undefined;
  lockTimeoutMs?: number | undefined;
}

/** Paths of one machine. */
export class Machine {
  readonly root: string;
  readonly name: string;

  /** Throws `usage` if `name` is not valid. */
  constructor(root: string, name: string) {
    if (!isMachineName(name))
      throw new CairnError("usage", `${JSON.stringify(name.slice(0, 80))} is not a valid name of a machine`, {
        hint: "use at most 63 letters, digits, dots, dashes and underscores, with a letter or digit first",
      });
    this.root = root;
    this.name = name;
  }

  /** A machine of a folder, by the folder's real path if it exists. */
  static in(root: string, name: string): Machine {
    return new Machine(existsSync(root) ? realpathSync(root) : root, name);
  }

  get folder(): string {
    return join(this.root, this.name);
  }

  /** The machine's present files, which QEMU opens; its working folder. */
  get live(): string {
    return join(this.folder, "live");
  }

  /** A full set of files that is not used yet. */
  get next(): string {
    return join(this.folder, "live.next");
  }

  /** The replaced set of files, until the new one is known to run. */
  get old(): string {
    return join(this.folder, "live.old");
  }

  /** The last saved state, a workspace. */
  get saved(): string {
    return join(this.folder, "saved");
  }

  /** Host keys that its guest's SSH server showed. */
  get knownHosts(): string {
    return join(this.folder, "known_hosts");
  }

  get lock(): string {
    return join(this.folder, "lock");
  }

  /** False also for a link to a folder: QEMU uses relative paths of a machine in this folder. */
  exists(): boolean {
    return (
      lstatSync(this.folder, { throwIfNoEntry: false })?.isDirectory() === true && existsSync(join(this.folder, RECORD))
    );
  }

  /** Throws `not_found` if there is no such machine, `damaged`, `newer_version`. */
  read(): MachineRecord {
    const bytes = this.exists() ? readSmallFile(join(this.folder, RECORD), RECORD_LIMIT) : null;
    if (bytes !== null) return decodeRecord(bytes, `${RECORD} of ${this.name}`);
    throw new CairnError("not_found", `there is no machine ${this.name} in ${printablePath(this.root)}`, {
      hint: advice`list the machines: ${line("vm list", "listMachines", word("machines"))}`,
    });
  }

  /** A restore of the machine that is under way, or was interrupted. */
  get restoring(): Unfinished<MachineRestore> {
    const otherwise =
      "if there is live.old beside it, that folder has the machine's files: move it to live; then remove that file";
    return new Unfinished(join(this.folder, "restoring.json"), workOf("machine-restore", otherwise));
  }

  write(record: MachineRecord): void {
    durableWrite(join(this.folder, RECORD), encodeRecord(record));
  }
}

/** Folder of the machines' shared files, below their folder; no machine has this name. */
export const SHARED = ".shared";

/** Path of a shared file: a lock or a cache. */
export function sharedFile(root: string, name: string): string {
  return join(root, SHARED, name);
}

/** Path of a content-addressed file, which machines share and never change. */
export function blobFile(root: string, digest: string): string {
  return sharedFile(root, join("blobs", digest));
}

/** The real path of the folder of machines, which is created if absent. Removes temporary files of commands that ended long ago. */
export function machinesFolder(root: string): string {
  makeFolder(join(root, SHARED, "blobs"));
  for (const folder of ["", "blobs"]) removeLeftovers(sharedFile(root, folder));
  return realpathSync(root);
}

/** Every machine of a folder, by name; also machines with an unreadable record. */
export function machinesIn(root: string): Machine[] {
  if (!existsSync(root)) return [];
  const real = realpathSync(root);
  const names = readdirSync(real).filter(isMachineName).toSorted();
  return names.map((name) => new Machine(real, name)).filter((machine) => machine.exists());
}

/** File that QEMU makes in its folder and removes when it ends in order. */
export const PID_FILE = "qemu.pid";

/** Returns a short path of a socket in QEMU's folder: the kernel limits paths of sockets to 107 bytes. */
export const socketOf = (pid: number, name: "qmp" | "console" | "identity"): string => `/proc/${pid}/cwd/${name}.sock`;

/** The process id of the QEMU that works in a folder; null if none does. */
export function processIn(folder: string): number | null {
  const text = readSmallFile(join(folder, PID_FILE), 64)?.toString("latin1").trim() ?? "";
  if (!/^\d{1,10}$/.test(text)) return null;
  try {
    // A process that reused the number has another working folder.
    return readlinkSync(`/proc/${text}/cwd`) === folder ? Number(text) : null;
  } catch {
    return null;
  }
}

/**
 * True while a QEMU has files of a folder open, which its lock on the pid file tells. The kernel closes the files of a
 * killed QEMU after its process has lost its working folder.
 */
export function hasOpenFiles(folder: string): boolean {
  let file: number;
  try {
    file = openRegular(join(folder, PID_FILE));
  } catch {
    return false;
  }
  try {
    return kernelLockState(file) !== "none";
  } finally {
    closeSync(file);
  }
}

export function encodeRecord({ createdAt, foreignNics, sshKeys, ...rest }: MachineRecord): Uint8Array {
  const value = {
    version: MACHINE_VERSION,
    created_at: createdAt,
    ...rest,
    foreign_nics: foreignNics,
    ssh_keys: sshKeys,
  };
  return Buffer.from(`${JSON.stringify(value, null, 1)}\n`);
}

/** Throws `damaged`, `newer_version`; messages name the record by its second parameter. */
export function decodeRecord(bytes: Uint8Array, what: string): MachineRecord {
  const fields = new Fields(parseJson(bytes, what), what);
  fields.requireVersion(MACHINE_VERSION);
  const state = RESTING.find((each) => fields.isText("state", each));
  if (fields.has("swapping"))
    throw earlierWork(
      `"swapping" in ${what}`,
      `if there is live.old beside it, move that folder to live; then set "swapping" to null`,
    );
  if (state === undefined) throw fields.wrong("state", `one of ${RESTING.join(", ")}`);
  return {
    id: fields.hex("id", 32),
    createdAt: fields.time("created_at"),
    ...decodeNames(fields),
    state,
    error: fields.isNull("error") ? null : fields.text("error"),
    hardware: decodeHardware(fields.object("hardware")),
    lineage: fields.list("lineage", (value, label) => new Fields({ value }, label).hex("value", 32)),
    generation: fields.text("generation", 36),
    mapped: fields.hexOrNull("mapped", 64),
    foreignNics: fields.boolean("foreign_nics"),
    identity:
      (["same", "new"] as const).find((each) => fields.has("identity") && fields.isText("identity", each)) ?? null,
    sshKeys: fields.textsOrNone("ssh_keys"),
  };
}
