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

/** Verbs of virtual machines, which lie in one folder by their names. */

export const machines = () => arg("machines", place("the folder of machines, absolute"));
export const name = (phrase = "of the machine") => arg("name", text(phrase));
export const machineErrors = ["not_found", "usage", "busy"] as const;

export const MachineState = oneOf(["creating", "created", "running", "stopped", "error"]);
export type MachineState = Of<typeof MachineState>;
export const MachineInfo = object({
  name: text(),
  id: text(),
  state: MachineState,
  error: orNull(text("why its state is `error`")),
  operation: orNull(text("what works on it now; null: nothing")),
  pid: orNull(number("of its QEMU; null: it does not run")),
  description: text(),
  image: text("the image that it was made from; empty: none"),
  hypervisor: text("the machine type that it has of QEMU"),
  accelerator: oneOf(["kvm", "tcg"], "`tcg`: software emulation"),
  cpu: text(),
  cpus: number(),
  memory: number("bytes"),
  disks: rows(object({ size: number("bytes"), base: orNull(text("SHA-256 of the image below it")) })),
  nics: rows(object({ network: text("`user`, or a tap's name"), mac: text() })),
  lineage: rows(text(), "keys of the states that were saved of it, oldest first"),
  saved: text("the workspace of its saved states, which is there after the first"),
  console_log: text("what its console said since it was started or brought back"),
  created_at: text(),
});
export type MachineInfo = Of<typeof MachineInfo>;

export const CreateMachineOptions = object({
  ...CallOptions.entries,
  description: opt(text()),
  image: opt(place("a disk image, raw or qcow2, that the first disk begins as; it is copied")),
  disks: opt(list(size(), "bytes of a disk; the first of them of the image's, where there is one")),
  kernel: opt(place("a kernel that is booted directly; it is copied")),
  initrd: opt(place("its initramfs; it is copied")),
  append: opt(text("the kernel's command line")),
  cpus: opt(count("1 unless told")),
  memory: opt(size("256 MiB unless told; whole MiB")),
  cpu: opt(text("one of QEMU's processors; Nehalem unless told")),
  nics: opt(list(text(), "`user`, or the name of a tap that is there")),
  start: opt(flag("boot it too")),
});
export type CreateMachineOptions = Of<typeof CreateMachineOptions>;

export const StopMachineOptions = object({
  ...CallOptions.entries,
  force: opt(flag("take its power away at once; what its guest has not written is lost")),
  deadlineMs: opt(count("milliseconds that its guest may take, 30 000 unless told; its power is taken then")),
});
export type StopMachineOptions = Of<typeof StopMachineOptions>;
export const StopMachineResult = object({
  ...MachineInfo.entries,
  obeyed: flag("false: its guest did not end by itself"),
});
export type StopMachineResult = Of<typeof StopMachineResult>;

export const ListMachinesResult = object({ machines: rows(MachineInfo, "by name") });
export type ListMachinesResult = Of<typeof ListMachinesResult>;

export const RemoveMachineOptions = object({
  ...CallOptions.entries,
  force: opt(flag("also one that runs: its power is taken away")),
  deletePoints: opt(flag("also one with saved states, which go with it")),
});
export type RemoveMachineOptions = Of<typeof RemoveMachineOptions>;

export const SaveMachineOptions = object({
  ...CallOptions.entries,
  message: opt(message("what this state is")),
  tags: opt(list(text(), "a tag")),
  cause: opt(about(Cause, "what led to it; a person unless told")),
});
export type SaveMachineOptions = Of<typeof SaveMachineOptions>;
export const SaveMachineResult = object({
  name: text(),
  state_id: text("lineage key of the state"),
  has_memory: flag("false: the machine did not run"),
  paused_ms: number("how long its guest did not run"),
  save_point: SavePoint,
  duration_ms: number(),
});
export type SaveMachineResult = Of<typeof SaveMachineResult>;

const pointOption = opt(text("a save point of the machine; its latest unless told"));
export const ExportMachineOptions = object({ ...CallOptions.entries, point: pointOption });
export type ExportMachineOptions = Of<typeof ExportMachineOptions>;

const source = {
  point: opt(text("MACHINE or MACHINE@POINT: a saved state of a machine in the same folder")),
  fromDirectory: opt(place("an export directory; it or `point` is given, and not both")),
};
export const CloneMachineOptions = object({
  ...CallOptions.entries,
  ...source,
  nics: opt(list(text(), "`user` or a tap for each network device, in place of the source's")),
});
export type CloneMachineOptions = Of<typeof CloneMachineOptions>;
const brought = {
  ready_ms: number("from the call until the guest could run"),
  duration_ms: number(),
  has_memory: flag("true: its guest goes on from where it was saved; false: it is to be started"),
};
export const CloneMachineResult = object({ ...MachineInfo.entries, ...brought });
export type CloneMachineResult = Of<typeof CloneMachineResult>;

export const RestoreMachineOptions = object({
  ...CallOptions.entries,
  point: opt(text("a save point of the machine, e.g. `latest`")),
  fromDirectory: opt(place("an export directory; it or `point` is given, and not both")),
  force: opt(flag("also a directory with the state of another machine")),
});
export type RestoreMachineOptions = Of<typeof RestoreMachineOptions>;
export const RestoreMachineResult = object({
  ...MachineInfo.entries,
  state_id: text("lineage key of the state"),
  ...brought,
});
export type RestoreMachineResult = Of<typeof RestoreMachineResult>;
