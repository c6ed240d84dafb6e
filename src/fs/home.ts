import { homedir, userInfo } from "node:os";
import { isAbsolute, join } from "node:path";

/** Places that follow from the environment. A hook in a folder that is not covered loads no more of this room. */

export type Environment = Readonly<Record<string, string | undefined>>;

/** A folder that a variable names; null for a relative path, which would depend on the current folder. */
export function absolutePath(env: Environment, variable: string): string | null {
  const path = env[variable];
  return path !== undefined && isAbsolute(path) ? path : null;
}

/** The user's home directory, absolute; null if neither `HOME` nor the machine names one. */
export function knownHome(env: Environment = process.env): string | null {
  for (const ask of [() => absolutePath(env, "HOME"), homedir, () => userInfo().homedir]) {
    try {
      const home = ask();
      if (home !== null && isAbsolute(home)) return home;
    } catch {
      // This source names no directory.
    }
  }
  return null;
}

/** `$XDG_STATE_HOME/cairn`, else `~/.local/state/cairn`; null if neither is known. */
export function knownStateDirectory(env: Environment = process.env): string | null {
  const home = absolutePath(env, "XDG_STATE_HOME") === null ? knownHome(env) : null;
  const state = home === null ? absolutePath(env, "XDG_STATE_HOME") : join(home, ".local/state");
  return state === null ? null : join(state, "cairn");
}
