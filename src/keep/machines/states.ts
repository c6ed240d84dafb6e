import { mkdirSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { shareBlobs, removeUnusedBlobs } from "../../capture/vm/blobs.ts";
import { hostOf } from "../../capture/vm/host.ts";
import {
  makeMachine,
  newNic,
  newRecord,
  ownNics,
  requireFreeName,
  swapState,
  withMachine,
} from "../../capture/vm/life.ts";
import { Machine, type MachineRecord, machinesFolder, sharedFile } from "../../capture/vm/machine.ts";
import { readSeed, requireSeed, writeSeed } from "../../capture/vm/seed.ts";
import { resume, runningIn } from "../../capture/vm/qemu.ts";
import type { Qmp } from "../../capture/vm/qmp.ts";
import {
  bringState,
  checkFits,
  flushFiles,
  giveState,
  hibernate,
  loadState,
  newGeneration,
  type Taken,
  takeState,
} from "../../capture/vm/state.ts";
import { watched, Watcher } from "../../capture/vm/watch.ts";
import type { ExportPointResult } from "../../contract/export-directory.ts";
import type {
  CloneMachineOptions,
  CloneMachineResult,
  ExportMachineOptions,
  RestoreMachineOptions,
  RestoreMachineResult,
  SaveMachineOptions,
  SaveMachineResult,
} from "../../contract/machines.ts";
import type { CallOptions, SavePoint } from "../../contract/words.ts";
import { advice, CairnError, line, option, word } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { temporaryName } from "../../fs/durable.ts";
import { removeAll } from "../../fs/remove-all.ts";
import type { LibraryHand } from "../hand.ts";
import { checkedDirectory, checkedPoint, type CheckedState, requireTaps, warnOf } from "./checked.ts";
import { ownInfo } from "./life.ts";
import { callOf, causeOf, newestOf, withClient } from "./saved-workspace.ts";

/**
 * Verbs of a machine's states. A saved state is the content of a workspace beside the machine; its points are save
 * points of that workspace.
 */

/**
 * Saves a machine. Steps: its state goes into a temporary folder; the state's id enters the lineage; the files replace
 * those of the last state; the save point is the commit.
 */
export async function saveMachine(
  hand: LibraryHand,
  root: string,
  name: string,
  options: SaveMachineOptions,
): Promise<SaveMachineResult> {
  return await saved(hand, root, name, options, false);
}

/**
 * Saves a machine and ends its QEMU, in one pause of its guest. Steps: those of a save; then those of `hibernate`, with
 * the machine's record as the commit. The guest runs again after a kill before that.
 */
export async function hibernateMachine(
  hand: LibraryHand,
  root: string,
  name: string,
  options: SaveMachineOptions,
): Promise<SaveMachineResult> {
  return await saved(hand, root, name, options, true);
}

async function saved(
  hand: LibraryHand,
  root: string,
  name: string,
  options: SaveMachineOptions,
  staysPaused: boolean,
): Promise<SaveMachineResult> {
  const started = performance.now();
  const { signal } = options;
  return await withMachine(root, name, staysPaused ? "hibernate" : "save", options, async (machine, record) => {
    const host = await hostOf(machine.root);
    using qmp = await runningIn(machine.live);
    if (staysPaused && qmp === null)
      throw new CairnError("conflict", `${name} does not run, so it has no memory to keep`, {
        hint: advice`save its disks: ${line(`vm save ${name}`, "saveMachine", word("machines"), name)}`,
      });
    const into = join(machine.folder, temporaryName());
    mkdirSync(into, { mode: 0o700 });
    let hasPoint = false;
    try {
      const take = async (): Promise<Taken> => takeState(host, machine, record, { qmp, into, signal, staysPaused });
      const keep = async (taken: Taken): Promise<SaveMachineResult> => {
        failpoint("vm-save.taken");
        const entered = { ...record, lineage: [...record.lineage, taken.saved.id] };
        machine.write(entered);
        await giveState(machine, taken, into);
        failpoint("vm-save.given");
        const point = await pointOf(hand, machine, options, (isMade) => (hasPoint = isMade));
        if (staysPaused) await hibernate(machine, entered, taken);
        return {
          name,
          state_id: taken.saved.id,
          has_memory: taken.saved.hasMemory,
          paused_ms: Math.round(taken.pausedMs * 10) / 10,
          save_point: point,
          duration_ms: Math.round(performance.now() - started),
        };
      };
      if (staysPaused) return await watched(machine, async () => keep(await take()));
      return await keep(qmp === null ? await take() : await watched(machine, take));
    } catch (error) {
      // The state has no point, so it is none of the machine's saves.
      try {
        if (!hasPoint) machine.write(record);
      } catch {
        // On a full disk the state stays in the lineage, without a point.
      }
      throw error;
    } finally {
      removeAll(into);
    }
  });
}

/** Makes the save point of a given state. `onPoint`: told whether there may be one, also if this fails. */
async function pointOf(
  hand: LibraryHand,
  machine: Machine,
  options: SaveMachineOptions,
  onPoint: (isMade: boolean) => void,
): Promise<SavePoint> {
  const { message, tags, cause } = options;
  return await withClient(hand, machine, options, async (client) => {
    const before = await newestOf(client);
    onPoint(true);
    const made = async (): Promise<boolean> => (await newestOf(client)) !== before;
    const saved = await client
      .save({
        ...callOf(options),
        cause: causeOf(machine, cause),
        ...(message === undefined ? {} : { message }),
        ...(tags === undefined ? {} : { tags }),
      })
      .catch(async (error: unknown) => {
        onPoint(await made().catch(() => true));
        throw error;
      });
    return await client.resolve(saved.save_point_id);
  });
}

export async function exportMachine(
  hand: LibraryHand,
  root: string,
  name: string,
  to: string,
  options: ExportMachineOptions,
): Promise<ExportPointResult> {
  const machine = Machine.in(root, name);
  machine.read();
  const { point = "latest" } = options;
  return await withClient(hand, machine, options, async (client) => client.exportPoint(point, to, callOf(options)));
}

/** A saved state: in an export directory, or a point of a machine. */
type Source = { fromDirectory: string } | { machine: string; point: string };

/** Checks a state completely and runs `work` with it. Files of a save point lie in a temporary folder meanwhile. */
async function withState<T>(
  hand: LibraryHand,
  root: string,
  source: Source,
  options: CallOptions & { mapsMemory: boolean },
  work: (state: CheckedState) => Promise<T>,
): Promise<T> {
  using _shared = await shareBlobs(root, options);
  if ("fromDirectory" in source) return await work(await checkedDirectory(root, source.fromDirectory, options));
  const machine = Machine.in(root, source.machine);
  machine.read();
  const to = sharedFile(root, temporaryName());
  try {
    const { point } = source;
    const check = { ...options, point, to };
    return await work(await withClient(hand, machine, options, async (client) => checkedPoint(machine, client, check)));
  } finally {
    removeAll(to);
  }
}

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
  const { point, fromDirectory, nics: given, userData, sshKeys, ...call } = options;
  if ((point === undefined) === (fromDirectory === undefined))
    throw new CairnError("usage", "a save point or an export directory is named, and not both");
  const folder = machinesFolder(root);
  const machine = new Machine(folder, name);
  requireFreeName(machine);
  const seed = readSeed({ userData, sshKeys });
  const [, from = "", at = "latest"] = /^([^@]*)(?:@(.*))?$/s.exec(point ?? "") ?? [];
  const source = fromDirectory === undefined ? { machine: from, point: at } : { fromDirectory };
  // A machine with mapped memory needs a second QEMU when it is saved, which cannot use the same tap.
  const mapsMemory = (given ?? []).every((network) => network === "user");
  return await withState(hand, folder, source, { ...call, mapsMemory }, async (state) => {
    const { saved, mapped } = state;
    const host = await hostOf(folder);
    checkFits(host, saved);
    const { hardware, hasMemory, description, image } = saved;
    const networks = given ?? hardware.nics.map(() => "user");
    if (networks.length !== hardware.nics.length)
      throw new CairnError(
        "usage",
        `the state has ${hardware.nics.length} network devices, and ${networks.length} are given`,
      );
    requireTaps(saved, networks);
    const nics = networks.map(newNic);
    const record: MachineRecord = {
      ...newRecord({ name, description, image }, { ...hardware, nics }),
      foreignNics: hasMemory && nics.length > 0,
    };
    let qmp: Qmp | null = null;
    let readyMs = 0;
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
        await goOn(machine, made, qmp, options);
        watcher?.done();
      },
    });
    warnOf(state, name, options);
    return { ...ownInfo(machine), ...times(started, readyMs), has_memory: hasMemory };
  });
}

const times = (started: number, readyMs: number) => ({
  ready_ms: Math.round(readyMs * 10) / 10,
  duration_ms: Math.round(performance.now() - started),
});

/** Lets a guest with a loaded state run, and gives it its own network devices. */
async function goOn(
  machine: Machine,
  record: MachineRecord,
  loaded: Qmp | null,
  { onWarning }: CallOptions,
): Promise<void> {
  if (loaded === null) return;
  using qmp = loaded;
  failpoint("vm-go-on.waits");
  await resume(qmp);
  failpoint("vm-go-on.runs");
  qmp.close();
  if (!record.foreignNics || !(await ownNics(machine, record)).foreignNics) return;
  onWarning?.(
    `the guest of ${machine.name} does not release its network devices, which keep their old addresses and have no link: reboot it with cairn vm stop and start`,
  );
}

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
  const { point, fromDirectory, force, signal, onWarning } = options;
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
      if (!record.lineage.includes(id)) {
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
      requireTaps(
        saved,
        own.map(({ tap }) => tap ?? "user"),
      );
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
        };
        const load = async (): Promise<Qmp> => loadState(host, machine, after, machine.live);
        return await watched(machine, async () => {
          const qmp = await swapState(machine, record, after, hasMemory ? load : null);
          const readyMs = performance.now() - started;
          await goOn(machine, after, qmp, options);
          warnOf(state, name, options);
          return { ...ownInfo(machine), state_id: id, ...times(started, readyMs), has_memory: hasMemory };
        });
      } finally {
        removeAll(machine.next);
      }
    });
  });
  await removeUnusedBlobs(realpathSync(root));
  return result;
}
