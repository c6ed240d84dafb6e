import { Fields, type JsonObject, parseJson } from "../fields.ts";

/** The description of a virtual machine: docs/formats/machine.md. */

/** The file that describes a saved machine, beside its memory and disks. */
export const SIDECAR = "cairn-machine.json";
export const MACHINE_VERSION = 1;

export interface Disk {
  /** Bytes that the guest sees. */
  size: number;
  /** SHA-256 of the image below the overlay; null if the overlay has the whole disk. */
  base: string | null;
}

export interface Nic {
  network: "user" | "tap";
  /** Name of a tap that the user created. */
  tap: string | null;
  mac: string;
  /** False: the guest reaches neither the host nor the internet, only the forwards reach it. A tap does not have this limit. */
  internet: boolean;
  forwards: Forward[];
}

/** A port of the host's loopback that leads to a port of the guest. */
export interface Forward {
  /** 0: QEMU takes a free port at the next start. */
  host: number;
  guest: number;
  /** True: QEMU chose the port, and chooses another one if the port is in use. */
  free: boolean;
}

/** The hardware on which a guest's saved state depends. */
export interface Hardware {
  /** A versioned machine type of QEMU. */
  machine: string;
  accelerator: "kvm" | "tcg";
  cpu: string;
  cpus: number;
  /** Bytes. */
  memory: number;
  /** SHA-256 of a directly booted kernel, and of its initramfs. */
  kernel: string | null;
  initrd: string | null;
  append: string;
  disks: Disk[];
  /** SHA-256 of the disc in the CD drive; null: the guest has no CD drive. */
  cdrom: string | null;
  nics: Nic[];
  /** True: the guest has the seed disk, from which cloud-init configures it. */
  seed: boolean;
  /** True: the guest has the serial port of Cairn's service in it. */
  port: boolean;
}

/** Texts that the user chose. */
export interface MachineNames {
  name: string;
  description: string;
  /** Path of the image from which the machine was made, as given. */
  image: string;
}

/** A saved state of a machine. */
export interface SavedMachine extends MachineNames {
  /** Lineage key of this state. */
  id: string;
  /** Version of the QEMU that saved the state. */
  hypervisorVersion: string;
  /** False: the machine was saved while it did not run; it has only disks. */
  hasMemory: boolean;
  /** True: the guest had network devices with other addresses. */
  foreignNics: boolean;
  hardware: Hardware;
  /** Devices with their addresses at the time of the save. */
  devices: string[];
}

/** Names of a saved state's files. */
export const MEMORY = "memory";
export const DEVICES = "devices";
export const BLOBS = "blobs";
/** The seed disk's file in a machine's folder, and its size: equal sizes let every guest with a seed load the state of another. */
export const SEED_FILE = "seed.iso";
export const SEED_SIZE = 1 << 20;
/** Name of the serial port at which Cairn's service in the guest listens. */
export const PORT_NAME = "org.cairn.identity";
export const diskFile = (index: number): string => `disk-${index}.qcow2`;

/** Returns the hashes of all images, kernels, initramfs and discs of a machine, each once. */
export function blobsOf({ kernel, initrd, disks, cdrom }: Hardware): string[] {
  const all = [kernel, initrd, ...disks.map(({ base }) => base), cdrom];
  return [...new Set(all.filter((each) => each !== null))];
}

/** Returns the names of all files of a saved state except its description. */
export function filesOf({ hardware, hasMemory }: SavedMachine): string[] {
  return [
    ...(hasMemory ? [MEMORY, DEVICES] : []),
    ...hardware.disks.map((_, i) => diskFile(i)),
    ...blobsOf(hardware).map((each) => `${BLOBS}/${each}`),
  ];
}

/** Returns the members of an envelope that describe a saved state. */
export function describedBy({ id, name, image, hardware }: SavedMachine): JsonObject & { id: string; name: string } {
  const { cpus, memory, disks, nics } = hardware;
  return {
    id,
    name,
    image,
    image_digest: disks[0]?.base ?? "",
    image_type: "qcow2",
    image_blob_ids: blobsOf(hardware),
    hypervisor: "qemu",
    cpu: cpus,
    memory,
    storage: disks.reduce((sum, { size }) => sum + size, 0),
    nics: nics.length,
    network: nics[0]?.network ?? "none",
  };
}

/** Returns the role of a saved state's file in an envelope. */
export function roleOf(name: string): string {
  if (name === MEMORY || name === DEVICES) return name;
  if (name === SIDECAR) return "config";
  return name.startsWith(`${BLOBS}/`) ? "base" : name.startsWith("disk-") ? "disk" : "content";
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const MAC = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/;
const TAP = /^[A-Za-z0-9._-]{1,15}$/;

export const isTapName = (name: string): boolean => TAP.test(name);
/** True for a valid name of a machine. */
export const isMachineName = (name: string): boolean => NAME.test(name);

/** Throws `damaged` with the wrong field. */
export function decodeHardware(fields: Fields): Hardware {
  const matching = (from: Fields, key: string, form: RegExp, wanted: string): string => {
    const value = from.text(key, 4096);
    if (!form.test(value)) throw from.wrong(key, wanted);
    return value;
  };
  const machine = matching(fields, "machine", /^pc-q35-\d{1,2}\.\d{1,2}$/, "a versioned machine type, pc-q35-…");
  const accelerator = (["kvm", "tcg"] as const).find((each) => fields.isText("accelerator", each));
  if (accelerator === undefined) throw fields.wrong("accelerator", "kvm or tcg");
  const memory = fields.integer("memory", 2 ** 43, 16 << 20);
  if (memory % (1 << 20) !== 0) throw fields.wrong("memory", "whole MiB");
  const few = <T>(key: string, read: (from: Fields) => T): T[] =>
    fields.list(key, (value, label) => read(new Fields(value, label)), 8);
  return {
    machine,
    accelerator,
    cpu: matching(fields, "cpu", /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, "the name of a processor"),
    cpus: fields.integer("cpus", 255, 1),
    memory,
    kernel: fields.hexOrNull("kernel", 64),
    initrd: fields.hexOrNull("initrd", 64),
    append: matching(fields, "append", /^[^\0]{0,2048}$/, "a text of at most 2048 characters"),
    disks: few("disks", (from) => ({
      size: from.integer("size", 2 ** 46, 512),
      base: from.hexOrNull("base", 64),
    })),
    // Machines of earlier builds have none.
    cdrom: fields.has("cdrom") ? fields.hexOrNull("cdrom", 64) : null,
    nics: few("nics", (from) => {
      const network = (["user", "tap"] as const).find((each) => from.isText("network", each));
      if (network === undefined) throw from.wrong("network", "user or tap");
      const tap = network === "tap" ? matching(from, "tap", TAP, "the name of a tap") : null;
      return {
        network,
        tap,
        mac: matching(from, "mac", MAC, "six bytes in hex"),
        // Network devices of earlier builds had no limit.
        internet: !from.has("internet") || from.boolean("internet"),
        forwards: from.has("forwards") ? from.list("forwards", (value, label) => forwardIn(value, label), 64) : [],
      };
    }),
    // Machines of earlier builds have neither.
    seed: fields.has("seed") && fields.boolean("seed"),
    port: fields.has("port") && fields.boolean("port"),
  };
}

function forwardIn(value: unknown, label: string): Forward {
  const from = new Fields(value, label);
  const free = from.has("free") && from.boolean("free");
  return { host: from.integer("host", 65_535), guest: from.integer("guest", 65_535, 1), free };
}

export function encodeSaved(saved: SavedMachine): Uint8Array {
  const { hypervisorVersion, hasMemory, foreignNics, ...rest } = saved;
  const value = {
    version: MACHINE_VERSION,
    hypervisor: "qemu",
    hypervisor_version: hypervisorVersion,
    has_memory: hasMemory,
    foreign_nics: foreignNics,
    ...rest,
  };
  return Buffer.from(`${JSON.stringify(value, null, 1)}\n`);
}

/** Throws `damaged` with the wrong field, `newer_version` for any version but 1. */
export function decodeSaved(bytes: Uint8Array): SavedMachine {
  const fields = new Fields(parseJson(bytes, SIDECAR), SIDECAR);
  fields.requireVersion(MACHINE_VERSION);
  if (!fields.isText("hypervisor", "qemu")) throw fields.wrong("hypervisor", "qemu");
  return {
    id: fields.hex("id", 32),
    ...decodeNames(fields),
    hypervisorVersion: fields.text("hypervisor_version", 64),
    hasMemory: fields.boolean("has_memory"),
    foreignNics: fields.boolean("foreign_nics"),
    hardware: decodeHardware(fields.object("hardware")),
    devices: fields.texts("devices"),
  };
}

export function decodeNames(fields: Fields): MachineNames {
  const name = fields.text("name", 63);
  if (!NAME.test(name)) throw fields.wrong("name", "the name of a machine");
  return { name, description: fields.text("description", 1 << 16), image: fields.text("image", 1 << 16) };
}
