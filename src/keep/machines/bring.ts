import { realpathSync } from "node:fs";
import { removeUnusedBlobs } from "../../capture/vm/blobs.ts";
import { hostOf } from "../../capture/vm/host.ts";
import { goOn, makeMachine, newRecord, requireFreeName, swapState, withMachine } from "../../capture/vm/life.ts";
import { Machine, type MachineRecord, machinesFolder } from "../../capture/vm/machine.ts";
import { readSeed, requireSeed, writeSeed } from "../../capture/vm/seed.ts";
import type { Renewed } from "../../capture/vm/identity.ts";
import { newNics } from "../../capture/vm/network.ts";
import type { Qmp } from "../../capture/vm/qmp.ts";
import { flushFiles, bringState, checkFits, loadState, newGeneration } from "../../capture/vm/state.ts";
import { watched, Watcher } from "../../capture/vm/watch.ts";
import type {
  CloneMachineOptions,
  CloneMachineResult,
  RestoreMachineOptions,
  RestoreMachineResult,
} from "../../contract/machines.ts";
import { advice, CairnError, either, line, option, word } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { Hardware, SavedMachine } from "../../formats/machine/machine.ts";
import { removeAll } from "../../fs/remove-all.ts";
import type { LibraryHand } from "../hand.ts";
import { identityOf } from "./identity.ts";
import { requireTaps, withState } from "./with-state.ts";
import { ownInfo } from "./life.ts";
import { callOf } from "./saved-workspace.ts";

/** Verbs that make a machine from a saved state, or bring a machine back to one. */

/**
 * Makes a machine from a saved state. Steps: the state is checked; the machine gets its name, then its files; the guest
 * waits in a QEMU of its own; the record is the commit; the guest runs, and gets network devices of its own.
 */
export async function cloneMachine(
  hand: LibraryHand,
  root: string,
  name: string,
  options: CloneMachineOptions,
): Promise<CloneMachineResult> {
  const started = performance.now();
  const {
    point,
    fromDirectory,
    nics: given,
    userData,
    sshKeys,
    forwards,
    internet = false,
    isRestored = false,
    ...call
  } = options;
  if ((point === undefined) === (fromDirectory === undefined))
    throw new CairnError("usage", "a save point or an export directory is named, and not both");
  const folder = machinesFolder(root);
  const machine = new Machine(folder, name);
  requireFreeName(folder, name);
  const seed = readSeed({ userData, sshKeys });
  const [, from = "", at = "latest"] = /^([^@]*)(?:@(.*))?$/s.exec(point ?? "") ?? [];
  const source = fromDirectory === undefined ? { machine: from, point: at } : { fromDirectory, isRestored };
  // A machine with mapped memory needs a second QEMU when it is saved, which cannot use the same tap.
  const mapsMemory = (given ?? []).every((network) => network === "user");
  return await withState(hand, folder, source, { ...call, mapsMemory }, async (state) => {
    const { saved, mapped } = state;
    const host = await hostOf(folder);
    checkFits(host, saved);
    const { hasMemory, description, image } = saved;
    const hardware = withSeed(saved, userData !== undefined || (sshKeys ?? []).length > 0);
    const networks = given ?? hardware.nics.map(() => "user");
    if (networks.length !== hardware.nics.length)
      throw new CairnError(
        "usage",
        `the state has ${hardware.nics.length} network devices, and ${networks.length} are given`,
      );
    requireTaps(saved, networks, !isRestored);
    // The ports of the source's host are in use.
    const same = hardware.nics.flatMap((nic) => nic.forwards.map(({ guest }) => String(guest)));
    const takes = networks.includes("user") ? same : [];
    const nics = newNics({ nics: networks, forwards: forwards ?? takes, internet });
    const keyFiles = sshKeys ?? ("point" in source ? new Machine(folder, from).read().sshKeys : []);
    const record: MachineRecord = {
      ...newRecord({ name, description, image }, { ...hardware, nics }),
      foreignNics: hasMemory && nics.length > 0,
      identity: hasMemory ? "new" : null,
      sshKeys: keyFiles,
    };
    let qmp: Qmp | null = null;
    let readyMs = 0;
    let renewed: Renewed | null = null;
    using watchers = new DisposableStack();
    let watcher: Watcher | null = null;
    await makeMachine(folder, record, options, {
      async fill() {
        if (hardware.seed) await writeSeed(machine, record, seed);
        await bringState(state, machine.live, options.signal);
        state.requireUnchanged();
        failpoint("vm-clone.brought");
        const flushed = flushFiles(machine.live);
        // QEMU starts while the watcher process starts.
        const loading = hasMemory ? loadState(host, machine, { ...record, mapped }, machine.live) : null;
        if (hasMemory) watcher = watchers.use(new Watcher(machine));
        [qmp] = await Promise.all([loading, flushed]);
        return { ...record, mapped, state: hasMemory ? "stopped" : "created" };
      },
      async goOn(made) {
        readyMs = performance.now() - started;
        renewed = await goOn(machine, made, qmp, options);
        watcher?.done();
      },
    });
    const identity = identityOf(state, name, renewed, options);
    return { ...ownInfo(machine), ...times(started, readyMs), has_memory: hasMemory, identity };
  });
}

/** Returns the hardware of a clone. Throws `refused` if the clone gets user data or keys, and its guest goes on without a seed disk. */
function withSeed({ hardware, hasMemory, name }: SavedMachine, isGiven: boolean): Hardware {
  if (hardware.seed || !isGiven) return hardware;
  if (!hasMemory) return { ...hardware, seed: true };
  throw new CairnError(
    "refused",
    `the guest of ${name} was made by an earlier version of Cairn and has no seed disk, so a clone cannot give it user data or SSH keys`,
    {
      hint: advice`clone a state that was saved while the machine was stopped, or add the keys in the guest${either(`: cairn vm console ${name}`, advice`, for example on its console`)}`,
    },
  );
}

const times = (started: number, readyMs: number) => ({
  ready_ms: Math.round(readyMs * 10) / 10,
  duration_ms: Math.round(performance.now() - started),
});

/**
 * Restores a machine to a saved state. Steps: checks the state, stages a full set of files beside the machine's files,
 * swaps both by `swapState`, which is committed by the machine's record, and lets the guest run.
 */
export async function restoreMachine(
  hand: LibraryHand,
  root: string,
  name: string,
  options: RestoreMachineOptions,
): Promise<RestoreMachineResult> {
  const started = performance.now();
  const { point, fromDirectory, force, newIdentity = false, signal, onWarning } = options;
  if ((point === undefined) === (fromDirectory === undefined))
    throw new CairnError("usage", "a save point or an export directory is named, and not both", {
      hint: advice`to restore the newest save point: ${line(`vm restore ${name} latest`, "restoreMachine", word("machines"), name, { point: "latest" })}`,
    });
  if (force === true && fromDirectory === undefined)
    throw new CairnError("usage", "force is only for an export directory, which can be of another machine");
  const result = await withMachine(root, name, "restore", options, async (machine, record) => {
    const source = fromDirectory === undefined ? { machine: name, point: point! } : { fromDirectory };
    const mapsMemory = record.hardware.nics.every(({ network }) => network === "user");
    return await withState(hand, machine.root, source, { ...callOf(options), mapsMemory }, async (state) => {
      const { saved, mapped } = state;
      const { hardware, hasMemory, id } = saved;
      const isForeign = !record.lineage.includes(id);
      if (isForeign) {
        if (force !== true)
          throw new CairnError("refused", `the state ${id} is not a state of ${name}`, {
            hint: advice`to replace this machine's state with it nevertheless: ${option("force")}`,
            details: { state_id: id, lineage: record.lineage },
          });
        onWarning?.(`the state of another machine, ${saved.name}, replaces the state of ${name}`);
      }
      const own = record.hardware.nics;
      if (hardware.nics.length !== own.length)
        throw new CairnError(
          "refused",
          `the state has ${hardware.nics.length} network devices, and ${name} has ${own.length}`,
          {
            details: { expected: own.length, actual: hardware.nics.length },
          },
        );
      const host = await hostOf(machine.root);
      checkFits(host, saved);
      const networks = own.map(({ tap }) => tap ?? "user");
      requireTaps(saved, networks, false);
      try {
        if (hardware.seed) await requireSeed(machine, record);
        await bringState(state, machine.next, signal);
        state.requireUnchanged();
        await flushFiles(machine.next);
        failpoint("vm-restore.staged");
        const hasForeign = saved.foreignNics || hardware.nics.some(({ mac }, i) => mac !== own[i]!.mac);
        const after: MachineRecord = {
          ...record,
          state: "stopped",
          error: null,
          hardware: { ...hardware, nics: own },
          mapped,
          generation: newGeneration(),
          foreignNics: hasMemory && hasForeign,
          identity: !hasMemory ? null : newIdentity || isForeign || record.identity === "new" ? "new" : "same",
        };
        const load = async (): Promise<Qmp> => loadState(host, machine, after, machine.live);
        return await watched(machine, async () => {
          const qmp = await swapState(machine, record, after, hasMemory ? load : null);
          const readyMs = performance.now() - started;
          const renewed = await goOn(machine, after, qmp, options);
          const identity = identityOf(state, name, renewed, options);
          return { ...ownInfo(machine), state_id: id, ...times(started, readyMs), has_memory: hasMemory, identity };
        });
      } finally {
        removeAll(machine.next);
      }
    });
  });
  await removeUnusedBlobs(realpathSync(root));
  return result;
}
