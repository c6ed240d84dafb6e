import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { STAGING_PREFIX } from "../engines/scan/task.ts";
import { CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { durableMkdir, durableWrite, fsyncDirectory } from "../fs/durable.ts";
import { displayPath, joinRaw, printablePath } from "../fs/safe-path.ts";
import { newKeptPlace } from "./control-layout.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

/** An entry that a restore displaced: where it was, its name in a staging directory, and a path of that. */
interface DisplacedEntry {
  path: Uint8Array;
  name: Uint8Array;
  staging: { path: Buffer };
}

/**
 * Moves what was displaced and is in no point, since it cannot be read, to a place where nobody removes it, and says so.
 *
 * Killed before an entry is moved it is looked at again by the next command; after that it lies there, with its path.
 */
export function keepDisplaced(
  { found }: Workspace,
  entries: readonly DisplacedEntry[],
  { onWarning }: Pick<WorkspaceCall, "onWarning">,
): void {
  if (entries.length === 0) return;
  const names = entries.map(({ path: where, name }) => `${text(name)}\t${displayPath(where).path}\n`).join("");
  let place = newKeptPlace(found.control, "restore");
  makeKeptPlace(place, names);
  let isEmpty = true;
  for (const { path: where, name, staging } of entries) {
    const from = joinRaw(staging.path, name);
    let kept = path.join(place, text(name));
    if (!isMoved(from, kept)) {
      if (isEmpty) fs.rmSync(place, { recursive: true });
      place = makeBeside(staging, names);
      kept = path.join(place, text(name));
      if (!isMoved(from, kept))
        throw new CairnError(
          "unsupported",
          `${printablePath(where)} as it was cannot be kept: it lies on a file system of its own`,
        );
    }
    isEmpty = false;
    failpoint("restore.displaced-kept");
    onWarning?.(
      `${printablePath(where)} was changed while it was restored and cannot be read, so that no save point has it as it was: it lies in ${kept}; remove it when it is not needed`,
    );
  }
}

/** `names`: what path each entry had. */
function makeKeptPlace(place: string, names: string): void {
  durableMkdir(place);
  durableWrite(path.join(place, "names"), Buffer.from(names), { mode: 0o600 });
}

/** Beside the staging directory, for what cannot be moved to another file system; no save sees a name like that at the root of a mount. */
function makeBeside(staging: DisplacedEntry["staging"], names: string): string {
  // The system's own: a path through a descriptor goes up from where that leads.
  const parent = fs.realpathSync.native(Buffer.concat([staging.path, Buffer.from("/..")]));
  const place = path.join(parent, `${STAGING_PREFIX}${randomBytes(8).toString("hex")}`);
  makeKeptPlace(place, names);
  return place;
}

/** False where the two are on different file systems. */
function isMoved(from: Buffer, to: string): boolean {
  try {
    fs.renameSync(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EXDEV") return false;
    throw toCairnError(error, `move what was displaced to ${to}`);
  }
  fsyncDirectory(path.dirname(to));
  return true;
}

function text(name: Uint8Array): string {
  return Buffer.from(name).toString("latin1");
}
