import { join } from "node:path";
import { CairnError } from "../../errors.ts";
import { homeDirectory } from "../../fs/users.ts";
import type { Pace } from "./limited.ts";
import type { OpenStorageOptions } from "./location.ts";
import { parseSftpLocation, printSftpLocation } from "./sftp-location.ts";
import { SftpStorage } from "./sftp.ts";
import { type JumpHost, sshSettings, type SshVia } from "./ssh-config.ts";
import { SshConnection, type SshTarget } from "./ssh-connection.ts";
import { knownHostName } from "./ssh-known-hosts.ts";

const SYSTEM_KNOWN_HOSTS = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"];
const USUAL_KEYS = ["id_ed25519", "id_ecdsa", "id_rsa"];

export interface OpenSftpOptions extends OpenStorageOptions {
  pace?: Pace;
}

/**
 * Opens an SFTP repository by what follows `sftp:` in its location; nothing is asked of the server before the first
 * call, except to create it. From the environment: `CAIRN_SFTP_KEY_FILE` (instead of the usual keys),
 * `CAIRN_SFTP_PASSPHRASE` (of keys), `CAIRN_SFTP_PASSWORD` (never asked for otherwise), `CAIRN_SFTP_KNOWN_HOSTS`
 * (a file of known host keys, before the usual ones), `CAIRN_SFTP_CONFIG` (instead of `~/.ssh/config`), `SSH_AUTH_SOCK`.
 */
export async function openSftpStorage(rest: string, options: OpenSftpOptions = {}): Promise<SftpStorage> {
  const location = parseSftpLocation(rest);
  const target = sftpTarget(rest, options.env ?? process.env);
  const storage = {
    location: printSftpLocation(location),
    connect: (signal: AbortSignal) => SshConnection.open(target, signal),
    ...(options.pace === undefined ? {} : { pace: options.pace }),
  };
  if (options.create === true) return SftpStorage.create(location.path, storage, { signal: options.signal });
  return new SftpStorage(location.path, storage);
}

/** How a location's server is reached and what is shown to it. */
export function sftpTarget(rest: string, env: Readonly<Record<string, string | undefined>>): SshTarget {
  const { host: alias, user, port } = parseSftpLocation(rest);
  return targetOf({ alias, user, port }, env, 0);
}

/** `depth`: how many hosts lie behind it; what the environment says is of the last one, but for the files and their passphrase. */
function targetOf(named: JumpHost, env: Readonly<Record<string, string | undefined>>, depth: number): SshTarget {
  const said = (name: string): string | undefined => env[name] || undefined;
  const saidOfLast = (name: string): string | undefined => (depth === 0 ? said(name) : undefined);
  const home = homeDirectory(env);
  const { user, port } = named;
  const settings = sshSettings(named.alias, { user, port, home, env, file: said("CAIRN_SFTP_CONFIG") });
  const keyFile = saidOfLast("CAIRN_SFTP_KEY_FILE");
  const knownHosts = said("CAIRN_SFTP_KNOWN_HOSTS");
  const usual = ["known_hosts", "known_hosts2"].map((name) => join(home, ".ssh", name));
  return {
    host: settings.host,
    port: settings.port,
    user: settings.user,
    knownAs: settings.hostKeyAlias?.toLowerCase() ?? knownHostName(settings.host, settings.port),
    knownHostsFiles: [
      ...(knownHosts === undefined ? [] : [knownHosts]),
      ...(settings.knownHostsFiles ?? usual),
      ...SYSTEM_KNOWN_HOSTS,
    ],
    credentials: {
      identityFiles: keyFile === undefined ? settings.identityFiles : [keyFile],
      defaultFiles: USUAL_KEYS.map((name) => join(home, ".ssh", name)),
      passphrase: said("CAIRN_SFTP_PASSPHRASE"),
      password: saidOfLast("CAIRN_SFTP_PASSWORD"),
      agent: settings.identityAgent === undefined ? (said("SSH_AUTH_SOCK") ?? null) : settings.identityAgent,
      identitiesOnly: settings.identitiesOnly,
    },
    via: routeOf(settings.via, env, depth + 1),
  };
}

const MOST_HOSTS = 8;

function routeOf(
  via: SshVia | null,
  env: Readonly<Record<string, string | undefined>>,
  depth: number,
): SshTarget["via"] {
  if (via === null || "command" in via) return via ?? undefined;
  if (depth > MOST_HOSTS)
    throw new CairnError("usage", `a host is reached through more than ${MOST_HOSTS} others`, {
      hint: "look in ~/.ssh/config for a ProxyJump that leads to itself",
    });
  let last: SshTarget | undefined;
  // How each but the first is reached says the one before it, and not the file.
  for (const jump of via.jumps) {
    const target = targetOf(jump, env, depth);
    last = last === undefined ? target : { ...target, via: last };
  }
  return last;
}
