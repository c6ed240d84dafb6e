import { join } from "node:path";
import { CairnError } from "../errors.ts";
import { absolutePath, homeDirectory } from "../fs/users.ts";
import { systemStateDirectory } from "../workspace/place/daemon-marks.ts";

/** Places of a daemon: root has the system's, anybody else their own. Flags and the environment override each. */
export interface DaemonPlaces {
  /** `state.json`, the instance lock, the loop image. */
  state: string;
  socket: string;
  config: string;
  /** True: the configuration was named, so that it has to be there. */
  isConfigNamed?: boolean;
  /** True: for all users of the machine, with a registry of its own. */
  isSystem: boolean;
}

export interface GivenPlaces {
  state?: string | undefined;
  socket?: string | undefined;
  config?: string | undefined;
}

/** The places by the hierarchy standard for root, by XDG for others. */
export function daemonPlaces(given: GivenPlaces = {}, env = process.env, uid = process.geteuid?.() ?? 0): DaemonPlaces {
  const isSystem = uid === 0;
  const state =
    given.state ??
    absolutePath(env, "CAIRN_STATE_DIR") ??
    (isSystem ? systemStateDirectory(env) : join(ownFolder(env, "XDG_STATE_HOME", ".local/state"), "cairn", "daemon"));
  const named = given.config ?? absolutePath(env, "CAIRN_CONFIG");
  const config =
    named ??
    (isSystem ? "/etc/cairn/config.toml" : join(ownFolder(env, "XDG_CONFIG_HOME", ".config"), "cairn", "config.toml"));
  const socket = given.socket ?? absolutePath(env, "CAIRN_SOCKET") ?? (isSystem ? SYSTEM_SOCKET : userSocket(env));
  if (socket === null)
    throw new CairnError("usage", "there is no place for the socket: XDG_RUNTIME_DIR is not set", {
      hint: "log in to a session, or name the socket's path in CAIRN_SOCKET",
    });
  return { state, socket, config, isConfigNamed: named !== null, isSystem };
}

export const SYSTEM_SOCKET = "/run/cairn/cairn.sock";

/** The socket of a user's own daemon; null without a session. */
export function userSocket(env = process.env): string | null {
  const runtime = absolutePath(env, "XDG_RUNTIME_DIR");
  return runtime === null ? null : join(runtime, "cairn", "cairn.sock");
}

function ownFolder(env: NodeJS.ProcessEnv, name: string, below: string): string {
  return absolutePath(env, name) ?? join(homeDirectory(), below);
}
