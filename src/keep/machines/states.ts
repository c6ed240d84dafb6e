import { chmodSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { hostOf } from "../../capture/vm/host.ts";
import { withMachine } from "../../capture/vm/life.ts";
import { Machine } from "../../capture/vm/machine.ts";
import { runningIn } from "../../capture/vm/qemu.ts";
import { giveState, hibernate, type Taken, takeState } from "../../capture/vm/state.ts";
import { watched } from "../../capture/vm/watch.ts";
import type { ExportPointResult } from "../../contract/export-directory.ts";
import type { ExportMachineOptions, SaveMachineOptions, SaveMachineResult } from "../../contract/machines.ts";
import type { SavePoint } from "../../contract/words.ts";
import { advice, CairnError, line, word } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { temporaryName } from "../../fs/durable.ts";
import { removeAll } from "../../fs/remove-all.ts";
import type { LibraryHand } from "../hand.ts";
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
 * Saves a machine as `saveMachine` does, but leaves the guest paused, and hibernates the machine in the steps of
 * `hibernate`. The commit is the machine's record. If this process is killed before the commit, the guest runs again.
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

/** Makes the save point of the state in `saved`. Calls `onPoint` with true if the point may exist, also if the save fails. */
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
  const { point = "latest", mode } = options;
  if (mode !== undefined && !/^0?[4-7][0-7][0-7]$/.test(mode))
    throw new CairnError(
      "usage",
      `${JSON.stringify(mode.slice(0, 80))} are no permissions with which the owner can read`,
      {
        hint: "give three octal digits, e.g. 640",
      },
    );
  const result = await withClient(hand, machine, options, async (client) =>
    client.exportPoint(point, to, callOf(options)),
  );
  if (mode !== undefined) setModes(result.path, Number.parseInt(mode, 8));
  return result;
}

/** Sets the permissions of a folder's files. Who may read the files may enter the folders. */
function setModes(folder: string, mode: number): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) setModes(path, mode);
    else chmodSync(path, mode);
  }
  chmodSync(folder, 0o700 | mode | ((mode & 0o444) >> 2));
}
