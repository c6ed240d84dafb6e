import { factsOfProbe } from "../clones/probe.ts";
import type { EngineReason, EngineType } from "../contract/words.ts";
import { durableWrite } from "../fs/durable.ts";
import { filesystemId } from "../fs/linux/mounts.ts";
import { makeFolder } from "../fs/make-folder.ts";
import { readRegular } from "../fs/regular-file.ts";
import type { FoundWorkspace } from "../workspace/place/find-workspace.ts";
import { isDeepStrictEqual } from "node:util";

/** Reasons for and against each engine, as the last probe found them. A probe itself is in `engine.ts`. */

/** The reason for the engine that needs nothing. */
export const COPY: EngineReason = { engine: "copy", chosen: false, reason: "works on every file system" };

/** Hint that names the command which chooses `engine`. */
export function askingFor(engine: EngineType): string {
  return `to choose it: cairn engine set ${engine}`;
}

/** Returns the reasons with the engine that is in use, which nobody has to ask for, as the chosen one. */
export function withChosen(reasons: readonly EngineReason[], used: EngineType): EngineReason[] {
  return reasons.map(({ hint, ...each }) => {
    const chosen = each.engine === used;
    const isAsked = hint === undefined || (chosen && hint === askingFor(used));
    return { ...each, chosen, ...(isAsked ? {} : { hint }) };
  });
}

/** Answers of the last probe; a cache. */
interface Remembered {
  format: "cairn.engines";
  version: 1;
  /** the file systems that were probed: the folder's and the control directory's */
  file_systems?: (string | null)[];
  /** what else the answers depend on, as far as it is known without asking again */
  facts?: string[];
  reasons: EngineReason[];
}

function remembered({ paths, controlFile }: FoundWorkspace): Remembered | null {
  try {
    const known = JSON.parse(readRegular(paths.engines).toString("utf8")) as Remembered;
    const isRight = (each: EngineReason): boolean => each.engine === controlFile.engine && each.chosen;
    if (Array.isArray(known.reasons) && known.reasons.some(isRight)) return known;
  } catch {
    // It is a cache.
  }
  return null;
}

/** Returns what the last probe said, as far as it is remembered; asking costs nothing. */
export function rememberedReasons(found: FoundWorkspace): EngineReason[] {
  const engine = found.controlFile.engine as EngineType;
  const reason = engine === "copy" ? COPY.reason : "chosen for this workspace";
  return remembered(found)?.reasons ?? [{ engine, chosen: true, reason }];
}

/** Returns what the last probe said, or null if folder or control directory lie elsewhere since. */
export function currentlyRemembered(found: FoundWorkspace): EngineReason[] | null {
  const now = askedOf(found);
  const { file_systems, facts } = remembered(found) ?? {};
  return now === null || isDeepStrictEqual({ file_systems, facts }, now) ? rememberedReasons(found) : null;
}

/** Returns what a probe of now would be of; null where one of the places is not there. */
function askedOf({ folder, control }: FoundWorkspace): Required<Pick<Remembered, "file_systems" | "facts">> | null {
  const fileSystems = [filesystemId(folder), filesystemId(control.root)];
  if (fileSystems.includes(null)) return null;
  return { file_systems: fileSystems, facts: factsOfProbe({ folder, place: control.root }) };
}

/** Remembers what a probe said, with the engine that is in use as the chosen one. */
export function rememberReasons(found: FoundWorkspace, engine: EngineType, reasons: readonly EngineReason[]): void {
  const { control, paths } = found;
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
    // Only for people to read.
  }
}
