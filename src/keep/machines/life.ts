import { existsSync } from "node:fs";
import { join } from "node:path";
import { addDisc, removeUnusedBlobs, shareBlobs } from "../../capture/vm/blobs.ts";
import { createMachine as create, realFile, startMachine as start } from "../../capture/vm/create.ts";
import { hostOf } from "../../capture/vm/host.ts";
import {
  abruptEnd,
  changeMachine as change,
  lookAt,
  lookAtAll,
  powerOff,
  removeMachine as remove,
  type Seen,
  stopMachine as stop,
  withMachine,
} from "../../capture/vm/life.ts";
import { Machine, machinesFolder, processIn } from "../../capture/vm/machine.ts";
import { readSeed } from "../../capture/vm/seed.ts";
import type {
  CreateMachineOptions,
  ListMachinesResult,
  MachineInfo,
  RemoveMachineOptions,
  SetMachineOptions,
  StopMachineOptions,
  StopMachineResult,
} from "../../contract/machines.ts";
import type { CallOptions } from "../../contract/words.ts";
import { advice, CairnError, option } from "../../errors.ts";
import { warnOfClock } from "./identity.ts";
import { hasPoints, withClient } from "./saved-workspace.ts";
import type { LibraryHand } from "../hand.ts";

/** Verbs that create, start, stop, list and remove machines. */

const STOP_MS = 30_000;

function infoOf({ machine, record, pid, operation }: Seen): MachineInfo {
  const { id, state, error, description, image, hardware, lineage, createdAt } = record;
  return {
    name: machine.name,
    id,
    state: pid !== null && state !== "creating" ? "running" : state,
    error,
    operation,
    pid,
    description,
    image,
    hypervisor: `qemu ${hardware.machine}`,
    accelerator: hardware.accelerator,
    cpu: hardware.cpu,
    cpus: hardware.cpus,
    memory: hardware.memory,
    disks: hardware.disks,
    cdrom: hardware.cdrom,
    nics: hardware.nics.map(({ tap, mac, internet, forwards }) => ({
      network: tap ?? "user",
      mac,
      internet,
      forwards: forwards.map(({ host, guest }) => ({ host, guest })),
    })),
    lineage,
    saved: machine.saved,
    ssh_keys: [...record.sshKeys],
    known_hosts: machine.knownHosts,
    console_log: join(machine.live, "console.log"),
    created_at: createdAt,
  };
}

/** Describes a machine to a caller that works on it: the caller's own operation is not shown. */
export function ownInfo(machine: Machine): MachineInfo {
  const record = machine.read();
  const error = record.error ?? abruptEnd(machine);
  return infoOf({ machine, record: { ...record, error }, pid: processIn(machine.live), operation: null });
}

/** Throws `usage` for memory or processors that no machine can have: {@link decodeHardware} has the same bounds. */
function checkSizes({ memory, cpus }: { memory?: number | undefined; cpus?: number | undefined }): void {
  if (cpus !== undefined && (!Number.isInteger(cpus) || cpus < 1 || cpus > 255))
    throw new CairnError("usage", `a machine has 1 to 255 processors, not ${cpus}`);
  if (memory !== undefined && (memory < 16 << 20 || memory % (1 << 20) !== 0))
    throw new CairnError("usage", `a machine has whole MiB of memory, at least 16, not ${memory} bytes`);
}

export async function createMachine(root: string, name: string, options: CreateMachineOptions): Promise<MachineInfo> {
  const {
    image,
    images: given = [],
    imageDigests = [],
    kernel,
    initrd,
    append,
    disks: sizes = [],
    nics = ["user"],
    forwards = [],
    internet = false,
    userData,
    sshKeys,
    start: boot,
    ...rest
  } = options;
  checkSizes(rest);
  const images = image === undefined ? given : [image, ...given];
  if (images.length === 0 && kernel === undefined && rest.cdrom === undefined)
    throw new CairnError("usage", "a machine needs a disk image, a CD image or a kernel to boot from");
  if (kernel === undefined && (initrd !== undefined || append !== undefined))
    throw new CairnError("usage", "an initramfs or a kernel command line needs a kernel, and none is given");
  const folder = machinesFolder(root);
  if (imageDigests.length > images.length)
    throw new CairnError("usage", `${imageDigests.length} digests are given for ${images.length} images`);
  const digest = imageDigests.find((each) => !/^[0-9a-f]{64}$/i.test(each));
  if (digest !== undefined)
    throw new CairnError("usage", `${digest} is not a SHA-256, which has 64 hexadecimal digits`);
  await create(
    folder,
    await hostOf(folder),
    {
      name,
      description: rest.description ?? "",
      images,
      imageDigests,
      disks: [...sizes, ...images.slice(sizes.length).map(() => null)],
      kernel: kernel ?? null,
      initrd: initrd ?? null,
      append: append ?? "",
      cdrom: rest.cdrom ?? null,
      cpu: rest.cpu ?? "Nehalem",
      cpus: rest.cpus ?? 1,
      memory: rest.memory ?? 256 << 20,
      network: { nics: nics.filter((network) => network !== "none"), forwards, internet },
      seed: readSeed({ userData, sshKeys }),
    },
    options,
  );
  if (boot === true) return await startMachine(folder, name, options);
  return ownInfo(new Machine(folder, name));
}

export async function startMachine(root: string, name: string, options: CallOptions): Promise<MachineInfo> {
  return await withMachine(root, name, "start", options, async (machine, record) => {
    warnOfClock(name, await start(await hostOf(machine.root), machine, record), options);
    return ownInfo(machine);
  });
}

export async function setMachine(root: string, name: string, options: SetMachineOptions): Promise<MachineInfo> {
  const { memory, cpus, diskSize, cdrom: disc, eject = false } = options;
  if ([memory, cpus, diskSize, disc].every((each) => each === undefined) && !eject)
    throw new CairnError("usage", "nothing is given to change: memory, CPUs, the size of the disk or the CD drive");
  checkSizes(options);
  if (eject && disc !== undefined) throw new CairnError("usage", "a disc is given, and the CD drive is to be removed");
  return await withMachine(root, name, "set", options, async (machine, record) => {
    {
      using _shared = await shareBlobs(machine.root, options);
      const added = disc === undefined ? undefined : await addDisc(machine.root, realFile(disc), options.signal);
      await change(machine, record, { memory, cpus, diskSize, cdrom: eject ? null : added });
    }
    await removeUnusedBlobs(machine.root);
    return ownInfo(machine);
  });
}

export async function stopMachine(root: string, name: string, options: StopMachineOptions): Promise<StopMachineResult> {
  const { force = false, deadlineMs = STOP_MS, signal } = options;
  return await withMachine(root, name, "stop", { ...options, ends: force }, async (machine, record) => {
    if (force && record.state === "hibernated") powerOff(machine, record);
    const obeyed = !force && (await stop(machine, deadlineMs, signal));
    return { ...ownInfo(machine), obeyed };
  });
}

export async function listMachines(root: string, { onWarning }: CallOptions): Promise<ListMachinesResult> {
  return { machines: (await lookAtAll(root, onWarning)).map(infoOf) };
}

export async function inspectMachine(root: string, name: string): Promise<MachineInfo> {
  return infoOf(await lookAt(Machine.in(root, name)));
}

export async function removeMachine(
  hand: LibraryHand,
  root: string,
  name: string,
  options: RemoveMachineOptions,
): Promise<{ name: string }> {
  const { force = false, deletePoints = false } = options;
  const refuse = (machine: Machine): void => {
    if (!force && processIn(machine.live) !== null)
      throw new CairnError("refused", `the machine ${name} is running`, {
        hint: advice`stop the machine first, or remove it running: ${option("force")}`,
      });
    // A save that failed leaves a folder without points.
    if (!deletePoints && existsSync(machine.saved) && (hasPoints(machine) || machine.read().lineage.length > 0))
      throw new CairnError("refused", `${name} has saved states, which would be removed with it`, {
        hint: advice`export the states first, or delete them too: ${option("deletePoints")}`,
      });
  };
  refuse(Machine.in(root, name));
  return await withMachine(root, name, "rm", { ...options, ends: force }, async (machine) => {
    refuse(machine);
    if (hasPoints(machine))
      await withClient(hand, machine, options, async (client) => client.release({ deletePoints: true }));
    await remove(machine, options);
    return { name };
  });
}
