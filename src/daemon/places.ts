import { existsSync } from "node:fs";
import { join } from "node:path";
import { CairnError } from "../errors.ts";
import { isSystemRoot } from "../fs/linux/user-namespace.ts";
import { absolutePath, homeDirectory } from "../fs/users.ts";
import { systemStateDirectory } from "../workspace/place/daemon-marks.ts";

/** Places of a daemon: for root those of the system, for another user that user's own. A variable overrides each. */
export interface DaemonPlaces {
  /** Folder of `state.json`, the instance lock and the loop image. */
  state: string;
  socket: string;
  config: string;
  /** True: the configuration was named, so it must exist. */
  isConfigNamed?: boolean;
  /** True: the daemon of all users of the machine, with its own registry. */
  isSystem: boolean;
}

/** Returns the places of the file system hierarchy standard for root, and those of XDG for other users. */
export function daemonPlaces(env = process.env, isSystem = isSystemRoot()): DaemonPlaces {
  const state =
    absolutePath(env, "CAIRN_STATE_DIR") ??
    (isSystem ? systemStateDirectory(env) : join(ownFolder(env, "XDG_STATE_HOME", ".local/state"), "cairn", "daemon"));
  const named = absolutePath(env, "CAIRN_CONFIG");
  const config =
    named ??
    (isSystem ? "/etc/cairn/config.toml" : join(ownFolder(env, "XDG_CONFIG_HOME", ".config"), "cairn", "config.toml"));
  const socket = absolutePath(env, "CAIRN_SOCKET") ?? (isSystem ? SYSTEM_SOCKET : userSocket(env));
  if (socket === null)
    throw new CairnError("usage", "there is no place for the socket: XDG_RUNTIME_DIR is not set", {
      hint: "log in to a session, or name the socket's path in CAIRN_SOCKET",
    });
  return { state, socket, config, isConfigNamed: named !== null, isSystem };
}

const SYSTEM_SOCKET = "/run/cairn/cairn.sock";

/** The socket of a user's own daemon; null without a session. */
function userSocket(env = process.env): string | null {
  const runtime = absolutePath(env, "XDG_RUNTIME_DIR");
  return runtime === null ? null : join(runtime, "cairn", "cairn.sock");
}

/** Sockets on which a daemon may answer, the user's own first. `CAIRN_SOCKET` names another; if it is `none`, no daemon is asked. */
export function socketsToAsk(env = process.env): string[] {
  return possibleSockets(env).filter((each) => existsSync(each));
}

/** Sockets as of {@link socketsToAsk}. If none of them exists, all sockets that a daemon would make. */
export function socketsOfClient(env = process.env): string[] {
  const there = socketsToAsk(env);
  return there.length === 0 ? possibleSockets(env) : there;
}

/**
 * Returns the variables of `env` that decide where records lie and which daemon is asked. A program that is started without them, for
 * example an MCP server of Codex, works on other records.
 */
export function decidingVariables(env: NodeJS.ProcessEnv): Record<string, string> {
  const own = absolutePath(env, "CAIRN_SOCKET") === null ? userSocket(env) : null;
  const runtime = own !== null && existsSync(own) ? ["XDG_RUNTIME_DIR"] : [];
  const names = ["XDG_STATE_HOME", "CAIRN_STATE_DIR", "CAIRN_SOCKET", ...runtime];
  return Object.fromEntries(names.flatMap((name) => ((env[name] ?? "") === "" ? [] : [[name, env[name]!]])));
}

/** The environment in which nearly nothing is set: a person's home directory, and a PATH. */
export function bareVariables({ HOME }: NodeJS.ProcessEnv, PATH = ""): Record<string, string> {
  return { ...(HOME === undefined ? {} : { HOME }), PATH };
}

function possibleSockets(env: NodeJS.ProcessEnv): string[] {
  if (env["CAIRN_SOCKET"] === "none") return [];
  const named = absolutePath(env, "CAIRN_SOCKET");
  return (named === null ? [userSocket(env), SYSTEM_SOCKET] : [named]).filter((each) => each !== null);
}

function ownFolder(env: NodeJS.ProcessEnv, name: string, below: string): string {
  return absolutePath(env, name) ?? join(homeDirectory(), below);
}
