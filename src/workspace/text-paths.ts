import { isUtf8 } from "node:buffer";
import { realpathSync } from "node:fs";
import { CairnError } from "../errors.ts";
import { printablePath } from "../fs/safe-path.ts";
import { existingAncestor } from "./room.ts";

/** Control directories are reached by text all the way, also by the links on it; a workspace's own folder may have any bytes. */

/** What bytes that are not UTF-8 have become in variables. */
const REPLACEMENT = "\uFFFD";
const ELSEWHERE = "choose a place that is: --control-dir DIR, or XDG_STATE_HOME in place of the home directory's";

/** Throws `unsupported` where a control directory that is to be made would lie below a name that is not UTF-8. Makes nothing. */
export function requireTextAbove(root: string): void {
  const above = existingAncestor(root);
  const real = realpathSync.native(above, "buffer");
  if (!isUtf8(real)) throw notText(real, ELSEWHERE);
  requireWhole(root);
}

/** The same only for a path that has lost its bytes already: it would be another one. Of a name that really has that character something is there. */
export function requireWhole(path: string, hint: string = ELSEWHERE): void {
  const missing = Buffer.from(path).subarray(existingAncestor(path).length);
  if (missing.includes(REPLACEMENT)) throw notText(Buffer.from(path), hint);
}

/** The text of a real path in which a control directory is to be made; throws the same. */
export function textOf(real: Buffer): string {
  if (!isUtf8(real)) throw notText(real, "choose a path that is");
  const text = real.toString("utf8");
  requireWhole(text, "choose a path that is");
  return text;
}

function notText(path: Buffer, hint: string): CairnError {
  return new CairnError("unsupported", `no control directory can be made in ${printablePath(path)}: it is not UTF-8`, {
    hint,
  });
}
