import { factsOfProbe } from "../clones/probe.ts";
import type { EngineReason, EngineType } from "../contract/words.ts";
import { durableWrite } from "../fs/durable.ts";
import { filesystemId } from "../fs/linux/mounts.ts";
import { makeFolder } from "../fs/make-folder.ts";
import { readRegular } from "../fs/regular-file.ts";
import { isOthersPlace } from "../fs/users.ts";
import type { FoundWorkspace } from "../workspace/place/find-workspace.ts";
import { isDeepStrictEqual } from "node:util";

/** Reasons for and against each engine, as found by the last probe. The probe itself is in `engine.ts`. */

/** The reason for the engine that works everywhere. */
export const COPY: EngineReason = { engine: "copy", chosen: false, reason: "works on every file system" };

/** Returns a hint with the command that chooses `engine`. */
export function askingFor(engine: EngineType): string {
  return `to choose it: cairn engine set ${engine}`;
}

/** Marks the engine in use as chosen in the reasons, and removes hints to choose that engine. */
export function withChosen(reasons: readonly EngineReason[], used: EngineType): EngineReason[] {
  return reasons.map(({ hint, ...each }) => {
    const chosen = each.engine === used;
    const isAsked = hint === undefined || (chosen && hint === askingFor(used));
    return { ...each, chosen, ...(isAsked ? {} : { hint }) };
  });
}

/** Results of the last probe; a cache. */
interface Remembered {
  format: "cairn.engines";
  version: 1;
  /** the probed file systems: the folder's and the control directory's */
  file_systems?: (string | null)[];
  /** other facts that the results depend on, and that are cheap to read */
  facts?: string[];
  reasons: EngineReason[];
}

function remembered({ paths, controlFile }: FoundWorkspace): Remembered | null {
  try {
    const known = JSON.parse(readRegular(paths.engines).toString("utf8")) as Remembered;
    const isRight = (each: EngineReason): boolean => each.engine === controlFile.engine && each.chosen;
    if (Array.isArray(known.reasons) && known.reasons.some(isRight)) return known;
  } catch {
    // The file is a cache.
  }
  return null;
}

/** Returns the results of the last probe, if remembered. Does not probe. */
export function rememberedReasons(found: FoundWorkspace): EngineReason[] {
  const engine = found.controlFile.engine as EngineType;
  const reason = engine === "copy" ? COPY.reason : "chosen for this workspace";
  return remembered(found)?.reasons ?? [{ engine, chosen: true, reason }];
}

/** Returns the results of the last probe. Null if the folder or the control directory is on another file system now. */
export function currentlyRemembered(found: FoundWorkspace): EngineReason[] | null {
  const now = askedOf(found);
  const { file_systems, facts } = remembered(found) ?? {};
  return now === null || isDeepStrictEqual({ file_systems, facts }, now) ? rememberedReasons(found) : null;
}

/** Returns the inputs of a probe made now. Null if the folder or the control directory is missing. */
function askedOf({ folder, control }: FoundWorkspace): Required<Pick<Remembered, "file_systems" | "facts">> | null {
  const fileSystems = [filesystemId(folder), filesystemId(control.root)];
  if (fileSystems.includes(null)) return null;
  return { file_systems: fileSystems, facts: factsOfProbe({ folder, place: control.root }) };
}

/** Stores the results of a probe, with the engine in use as chosen. */
export function rememberReasons(found: FoundWorkspace, engine: EngineType, reasons: readonly EngineReason[]): void {
  const { control, paths } = found;
  if (isOthersPlace(control.root)) return;
  try {
    makeFolder(control.cache);
    const file: Remembered = {
      format: "cairn.engines",
      version: 1,
      ...askedOf(found),
      reasons: withChosen(reasons, engine),
    };
    durableWrite(paths.engines, Buffer.from(`${JSON.stringify(file)}\n`));
  } catch {
    // The file is only shown to people.
  }
}
