import { mkdirSync, realpathSync } from "node:fs";
import { advice, CairnError, line, toCairnError, word } from "../../errors.ts";
import type { Hardware, MachineNames } from "../../formats/machine/machine.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { addBlob, addDisc, addImage, imageSize, newDisk, removeUnusedBlobs, shareBlobs } from "./blobs.ts";
import type { Host } from "./host.ts";
import { linkWithoutService, tell, type Renewed } from "./identity.ts";
import { inSectors, makeMachine, newRecord, requireFreeName } from "./life.ts";
import type { Machine, MachineRecord, OperationOptions } from "./machine.ts";
import { type Network, newNics, openForwards } from "./network.ts";
import { hasRoom, isPaused, noRoom, orEnded, resume, runningIn, startQemu } from "./qemu.ts";
import { requireSeed, type Seed, writeSeed } from "./seed.ts";
import { checkFits, flushFiles, forgetMemory, growDisks, hibernatedIn, loadState } from "./state.ts";
import { failpoint } from "../../failpoint.ts";
import { watched } from "./watch.ts";

/** Makes machines from images and kernels, and boots them. */

interface NewMachine extends Omit<MachineNames, "image"> {
  cpus: number;
  memory: number;
  cpu: string;
  /** Paths of the disk images whose content the first disks have at the start, and the expected digest of each. */
  images: readonly string[];
  imageDigests: readonly string[];
  /** Size of each disk in bytes, at least its image's size; null: exactly that size. */
  disks: readonly (number | null)[];
  kernel: string | null;
  initrd: string | null;
  append: string;
  /** Path of an image of a CD or DVD. */
  cdrom: string | null;
  network: Network;
  seed: Seed;
}

/** Makes a machine of an image, a kernel, or both. Steps: its name with a record in state `creating`; its files; the final record. */
export async function createMachine(
  root: string,
  host: Host,
  given: NewMachine,
  options: OperationOptions,
): Promise<MachineRecord> {
  const { name, description, images, imageDigests, disks, network, kernel, initrd, cdrom, seed, ...rest } = given;
  const { signal } = options;
  requireFreeName(root, name);
  using _shared = await shareBlobs(root, options);
  const kept = async (file: string | null): Promise<string | null> =>
    file === null ? null : addBlob(root, realFile(file), { signal });
  const bases: string[] = [];
  for (const [i, image] of images.entries())
    bases.push(await addImage(root, realFile(image), { sha256: imageDigests[i], signal }));
  const least = bases.map((base) => imageSize(root, base));
  const hardware: Hardware = {
    ...rest,
    machine: `pc-q35-${host.version.split(".").slice(0, 2).join(".")}`,
    accelerator: host.accelerator,
    kernel: await kept(kernel),
    initrd: await kept(initrd),
    disks: disks.map((size, i) => ({ size: inSectors(size ?? least[i] ?? 0), base: bases[i] ?? null })),
    cdrom: cdrom === null ? null : await addDisc(root, realFile(cdrom), signal),
    nics: newNics(network),
    seed: true,
    port: true,
  };
  for (const [i, { size }] of hardware.disks.entries())
    if (size < (least[i] ?? 0))
      throw new CairnError("usage", `a disk of ${size} bytes is too small for an image of ${least[i]} bytes`);
  const record = { ...newRecord({ name, description, image: images[0] ?? "" }, hardware), sshKeys: seed.keyFiles };
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

export function realFile(file: string): string {
  try {
    return realpathSync(file);
  } catch (error) {
    throw toCairnError(error, `read ${printablePath(file)}`);
  }
}

/** Boots a stopped machine, or resumes a hibernated guest and returns the answer of its service. Throws `conflict` if the machine runs, `refused` in the state `error`. */
export async function startMachine(host: Host, machine: Machine, record: MachineRecord): Promise<Renewed | null> {
  using running = await runningIn(machine.live);
  if (running !== null) throw new CairnError("conflict", `${machine.name} runs already`);
  if (record.state === "error")
    throw new CairnError("refused", `${machine.name} is in the state error: ${record.error}`, {
      hint: advice`restore a saved state: ${line("vm restore", "restoreMachine", word("machines"), word("name"))}`,
    });
  const isHibernated = record.state === "hibernated";
  if (isHibernated) checkFits(host, hibernatedIn(machine));
  else forgetMemory(machine);
  // The start would replace the recorded end of the last QEMU.
  if (!hasRoom(machine.live)) throw noRoom(`start ${machine.name}`);
  if (isHibernated) return await wake(host, machine, record);
  // A fresh boot uses the present devices and any accelerator, and machines of earlier builds get the port.
  const { hardware } = record;
  const fresh = { ...record, hardware: { ...hardware, accelerator: host.accelerator, port: true } };
  if (hardware.seed) await requireSeed(machine, record);
  await growDisks(machine, record);
  using qmp = await startQemu(host, machine, fresh, { folder: machine.live, incoming: false, mapped: null });
  await orEnded(machine.live, qmp, async () => {
    await openForwards(qmp, machine, { ...fresh, state: "stopped", mapped: null, foreignNics: false, identity: null });
    await resume(qmp);
  });
  if (record.mapped !== null) await removeUnusedBlobs(machine.root);
  return null;
}

/**
 * Resumes the guest of a hibernated machine. Steps: QEMU loads the state and keeps the guest paused; the forwards open;
 * ● the machine's record; the guest runs, and its service sets the clock. If a step before the commit fails, or QEMU
 * does not run the guest, the machine stays hibernated.
 */
async function wake(host: Host, machine: Machine, record: MachineRecord): Promise<Renewed> {
  const awake: MachineRecord = { ...record, state: "stopped", identity: record.identity ?? "same" };
  return await watched(machine, async () => {
    using qmp = await loadState(host, machine, awake, machine.live);
    let opened = awake;
    await orEnded(machine.live, qmp, async () => {
      failpoint("vm-start.loaded");
      let ran = false;
      using _events = qmp.listen((event) => (ran ||= event?.event === "RESUME"));
      await linkWithoutService(qmp, awake);
      opened = await openForwards(qmp, machine, awake);
      failpoint("vm-start.committed");
      try {
        await resume(qmp);
      } catch (error) {
        // Memory and disks belong together as long as the guest has not run; the caller ends QEMU.
        if (!ran && (await isPaused(qmp).catch(() => false)) && !ran) machine.write(record);
        throw error;
      }
    });
    return (await tell(qmp, machine, opened)).told;
  });
}
