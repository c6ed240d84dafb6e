import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { advice, CairnError, call, word } from "../../errors.ts";
import { printablePath, shellPath } from "../../fs/paths/safe-path.ts";
import { splitLocation } from "../../repository/storage/location.ts";
import { realPathOf } from "../../workspace/place/find-workspace.ts";

/**
 * Returns the folder of a repository's location if a msgvault repository lies there, by the content of its config; else
 * null. Throws `newer_version`, `unsupported`, `damaged`, `permission`.
 */
export async function msgvaultAt(location: string): Promise<string | null> {
  const { scheme, rest } = splitLocation(location);
  const folder = resolve(rest);
  if (scheme !== "local" || !existsSync(join(folder, "config.toml")) || existsSync(join(folder, "config"))) return null;
  const { MsgvaultRepository } = await import("../../bundle/msgvault/repository.ts");
  using found = MsgvaultRepository.at(folder);
  return found === null ? null : folder;
}

/** Throws `unsupported` for a location of a msgvault repository; if `isNew`, also for a place anywhere in one. */
export async function requireNoMsgvault(location: string, isNew = false): Promise<void> {
  let found = await msgvaultAt(location);
  const { scheme, rest } = splitLocation(location);
  if (isNew && scheme === "local")
    for (let at = dirname(realPathOf(resolve(rest)).toString()); found === null && at !== "/"; at = dirname(at))
      found = await msgvaultAt(at);
  if (found === null) return;
  const [shown, quoted] = [printablePath(found), shellPath(found)];
  const list = call(`backup list -r ${quoted}`, "listMsgvault", found);
  const restore = call(`backup import-msgvault ${quoted} --to DIR`, "importMsgvault", found, word("to"));
  throw new CairnError("unsupported", `${shown} is a msgvault repository, which Cairn only reads`, {
    hint: advice`${list} lists its snapshots, ${restore} restores one`,
  });
}
