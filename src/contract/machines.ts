import {
  about,
  count,
  flag,
  list,
  message,
  number,
  object,
  type Of,
  oneOf,
  opt,
  orNull,
  place,
  rows,
  size,
  text,
} from "./schema.ts";
import { CallOptions, Cause, SavePoint } from "./words.ts";
import { arg } from "./verb.ts";

/** Verbs of virtual machines, which are in one folder by name. */

export const machines = () => arg("machines", place("the folder of the machines (absolute)"));
export const name = (phrase = "name of the machine") => arg("name", text(phrase));
export const machineErrors = ["not_found", "usage", "busy"] as const;

export const MachineState = oneOf(["creating", "created", "running", "stopped", "hibernated", "error"]);
export type MachineState = Of<typeof MachineState>;
export const MachineInfo = object({
  name: text(),
  id: text(),
  state: MachineState,
  error: orNull(text("why the state is `error`")),
  operation: orNull(text("the operation in progress; null: none")),
  pid: orNull(number("process id of its QEMU; null: the machine is not running")),
  description: text(),
  image: text("the image that the machine was created from; empty: none"),
  hypervisor: text("QEMU's machine type"),
  accelerator: oneOf(["kvm", "tcg"], "`tcg`: software emulation"),
  cpu: text(),
  cpus: number(),
  memory: number("bytes"),
  disks: rows(object({ size: number("bytes"), base: orNull(text("SHA-256 of the image below it")) })),
  cdrom: orNull(text("SHA-256 of the disc in its CD drive; null: it has no CD drive")),
  nics: rows(
    object({
      network: text("`user`, or a tap's name"),
      mac: text(),
      internet: flag("false: the guest reaches neither this host nor the internet"),
      forwards: rows(
        object({
          host: number("port of 127.0.0.1; 0: a free one at the next start"),
          guest: number("port of the guest"),
        }),
      ),
    }),
  ),
  lineage: rows(text(), "keys of the machine's saved states, oldest first"),
  saved: text("the workspace of the saved states; it exists after the first save"),
  ssh_keys: rows(text(), "files with SSH keys that were given for the machine"),
  known_hosts: text("file with the guest's SSH host keys"),
  console_log: text("path of the console log since the last start or restore"),
  created_at: text(),
});
export type MachineInfo = Of<typeof MachineInfo>;

const access = {
  userData: opt(
    place("file with user data for cloud-init in the guest, e.g. a script or #cloud-config"),
    "--user-data <file>",
  ),
  sshKeys: opt(
    list(place(), "file with a public key that may log in to the guest by SSH; for a private key, the file with .pub"),
    "--ssh-key <file>",
  ),
  forwards: opt(
    list(
      text(),
      "HOST:GUEST: this port of 127.0.0.1 leads to the guest's port, e.g. 2222:22; GUEST alone takes a free port of the host",
    ),
    "--forward <ports>",
  ),
  internet: opt(flag("let the guest reach the internet and every service of this host, also on its loopback")),
};
export const CreateMachineOptions = object({
  ...CallOptions.entries,
  description: opt(text()),
  image: opt(place("as `images`, for one disk")),
  images: opt(
    list(place(), "disk image (qcow2, raw, VMDK or VHDX) for the first disk, the second and so on; it is copied"),
    "--image <file>",
  ),
  imageDigests: opt(
    list(text(), "SHA-256 that the image of the same place in the list must have"),
    "--image-sha256 <digest>",
  ),
  disks: opt(
    list(size(), "add an empty disk of this size; with images, the first sizes are those of the disks made from them"),
    "--disk <size>",
  ),
  cdrom: opt(place("add a CD drive with this ISO image, which is copied; it boots from there if no disk is bootable")),
  kernel: opt(place("kernel to boot directly; it is copied")),
  initrd: opt(place("initramfs for the kernel; it is copied")),
  append: opt(text("the kernel's command line")),
  cpus: opt(count("number of CPUs; default 1")),
  memory: opt(size("memory in whole MiB; default 256 MiB")),
  cpu: opt(text("QEMU's CPU model; default Nehalem")),
  nics: opt(list(text(), "`user` (the default), the name of an existing tap device, or `none`"), "--nic <network>"),
  ...access,
  start: opt(flag("boot the machine after creating it")),
});
export type CreateMachineOptions = Of<typeof CreateMachineOptions>;

export const SetMachineOptions = object({
  ...CallOptions.entries,
  memory: opt(size("memory in whole MiB")),
  cpus: opt(count("number of CPUs")),
  diskSize: opt(size("size of the first disk, which can only grow")),
  cdrom: opt(place("ISO image for the CD drive, which is added if there is none; it is copied")),
  eject: opt(flag("remove the CD drive")),
});
export type SetMachineOptions = Of<typeof SetMachineOptions>;

export const StopMachineOptions = object({
  ...CallOptions.entries,
  force: opt(flag("power off at once; data that the guest has not written is lost")),
  deadlineMs: opt(count("milliseconds to wait for the guest before powering off; default 30 000")),
});
export type StopMachineOptions = Of<typeof StopMachineOptions>;
export const StopMachineResult = object({
  ...MachineInfo.entries,
  obeyed: flag("false: the guest did not shut down by itself"),
});
export type StopMachineResult = Of<typeof StopMachineResult>;

export const ListMachinesResult = object({ machines: rows(MachineInfo, "sorted by name") });
export type ListMachinesResult = Of<typeof ListMachinesResult>;

export const RemoveMachineOptions = object({
  ...CallOptions.entries,
  force: opt(flag("remove a running machine too: it is powered off")),
  deletePoints: opt(flag("remove a machine with saved states too: they are deleted")),
});
export type RemoveMachineOptions = Of<typeof RemoveMachineOptions>;

export const SaveMachineOptions = object({
  ...CallOptions.entries,
  message: opt(message("description of this state"), "-m, --message <text>"),
  tags: opt(list(text(), "a tag"), "-t, --tag <tag>"),
  cause: opt(about(Cause, "what led to the point; default: a person")),
});
export type SaveMachineOptions = Of<typeof SaveMachineOptions>;
export const SaveMachineResult = object({
  name: text(),
  state_id: text("lineage key of the state"),
  has_memory: flag("false: the machine was not running"),
  paused_ms: number("how long the guest was paused; its clock is behind by as much afterwards"),
  save_point: SavePoint,
  duration_ms: number(),
});
export type SaveMachineResult = Of<typeof SaveMachineResult>;

const pointOption = opt(text("a save point of the machine; default: its latest"));
export const ExportMachineOptions = object({
  ...CallOptions.entries,
  point: pointOption,
  mode: opt(
    text(
      "permissions of all exported files: memory, devices, disks, images, descriptions; e.g. 640 lets their group read them, and enter the folders; default: only the owner reads memory, devices and disks",
    ),
    "--mode <octal>",
  ),
});
export type ExportMachineOptions = Of<typeof ExportMachineOptions>;

const source = {
  point: opt(text("MACHINE or MACHINE@POINT: a saved state of a machine in the same folder")),
  fromDirectory: opt(place("an export directory, instead of a save point"), "--from <dir>"),
};
export const CloneMachineOptions = object({
  ...CallOptions.entries,
  ...source,
  isRestored: opt(
    flag(
      "the directory is no export, but a folder into which a backup of a machine's saved state was restored; its files are moved",
    ),
  ),
  nics: opt(list(text(), "`user` or a tap device for each network device, instead of the source's"), "--nic <network>"),
  ...access,
});
export type CloneMachineOptions = Of<typeof CloneMachineOptions>;
const identityItems = oneOf(["clock", "entropy", "host_name", "machine_id", "ssh_host_keys", "dhcp"]);
const identity = object({
  confirmed: rows(identityItems, "what the service in the guest made new, or set"),
  shared: rows(identityItems, "what the guest still has in common with others that continue from this state"),
  clock_behind_ms: orNull(number("how far the guest's clock was behind this host's; null: not known")),
  not_covered: rows(text(), "what no service can make new"),
});
const brought = {
  ready_ms: number("time from the call until the guest could run"),
  duration_ms: number(),
  has_memory: flag("true: the guest continues from its saved state; false: the machine must be started"),
  identity: orNull(about(identity, "the guest's own identity; null: the guest boots at the next start")),
};
export const CloneMachineResult = object({ ...MachineInfo.entries, ...brought });
export type CloneMachineResult = Of<typeof CloneMachineResult>;

export const RestoreMachineOptions = object({
  ...CallOptions.entries,
  point: opt(text("a save point of the machine, e.g. `latest`")),
  fromDirectory: opt(place("an export directory, instead of a save point"), "--from <dir>"),
  force: opt(flag("accept a directory with the state of another machine too")),
  newIdentity: opt(
    flag("give the guest new SSH host keys, and its own host name, machine id and DHCP identifiers, as a clone gets"),
  ),
});
export type RestoreMachineOptions = Of<typeof RestoreMachineOptions>;
export const RestoreMachineResult = object({
  ...MachineInfo.entries,
  state_id: text("lineage key of the state"),
  ...brought,
});
export type RestoreMachineResult = Of<typeof RestoreMachineResult>;
