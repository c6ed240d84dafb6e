import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import type { Socket } from "node:net";
import { stripVTControlCharacters } from "node:util";
import { CairnError, type ErrorCode } from "../../../errors.ts";
import { withPipes } from "../../../fs/child-pipes.ts";
import { printablePath } from "../../../fs/paths/safe-path.ts";

/** A server, and the program that connects to it. */
export interface SshTarget {
  readonly host: string;
  readonly user: string | undefined;
  readonly port: number | undefined;
  /** A shell command that replaces `ssh`. */
  readonly command?: string | undefined;
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
}

/** Receives the bytes of the server, and the reason for the program's end. */
export interface SshReader {
  data(chunk: Buffer): void;
  end(error: CairnError): void;
}

const MOST_SAID = 4000;
const LAST_LINES = 3;
/** Milliseconds to wait for the last messages after the exit, if a child of the program keeps the stream open. */
const LAST_WORDS_MS = 200;
/** Milliseconds for the program to exit after its input was closed. */
const GOODBYE_MS = 2000;

/** A process of the user's own `ssh -s HOST sftp`; keeps this process alive only after `ref`. */
export class SshProcess {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #pipes: readonly Socket[];

  /**
   * Throws `io` if no file descriptors are left. `mayAsk`: `ssh` may ask at the terminal for a password or about a host
   * key.
   */
  constructor(target: SshTarget, reader: SshReader, { mayAsk }: { mayAsk: boolean }) {
    const { host, user, port, env = process.env, command = "ssh" } = target;
    const words = [
      ...(mayAsk ? [] : ["-o", "BatchMode=yes"]),
      ...(user === undefined ? [] : ["-l", user]),
      ...(port === undefined ? [] : ["-p", String(port)]),
      "-s",
      host,
      "sftp",
    ];
    // Neither Ctrl-C nor a hang-up of the terminal may end ssh: afterwards a lock is removed over this connection.
    const script = `trap "" INT HUP; exec ${command} "$@"`;
    this.#child = withPipes(spawn("/bin/sh", ["-c", script, "sh", ...words], { env }), "ssh");
    const { stdin, stdout, stderr } = this.#child;
    this.#pipes = [stdin, stdout, stderr] as unknown as Socket[];
    let said = "";
    stderr.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(-MOST_SAID)));
    stdout.on("data", (chunk: Buffer) => reader.data(chunk));
    // Writing to an ended program fails; the reader gets the reason.
    stdin.on("error", () => undefined);
    const end = (status: number | null, signal: string | null): void => {
      this.#destroy();
      reader.end(failureOf(target, { how: signal ?? `status ${status}`, status, said: lastLines(said) }));
    };
    this.#child.on("close", end);
    this.#child.on("exit", (...how) => setTimeout(() => end(...how), LAST_WORDS_MS).unref());
    this.#child.on("error", (error) => reader.end(new CairnError("io", `cannot start ssh: ${error.message}`)));
    this.unref();
  }

  write(bytes: Uint8Array): void {
    this.#child.stdin.write(bytes);
  }

  ref(): void {
    for (const each of [this.#child, ...this.#pipes]) each.ref();
  }

  unref(): void {
    for (const each of [this.#child, ...this.#pipes]) each.unref();
  }

  /** Closes the program's input, so that it exits by itself. */
  close(): void {
    this.#child.stdin.end();
    setTimeout(() => this.kill(), GOODBYE_MS).unref();
  }

  /** Ends the program at once, by SIGKILL if it does not react. */
  kill(): void {
    this.#destroy();
    this.#child.kill();
    setTimeout(() => this.#child.kill("SIGKILL"), GOODBYE_MS).unref();
  }

  #destroy(): void {
    for (const pipe of this.#pipes) pipe.destroy();
  }
}

interface Ended {
  readonly how: string;
  readonly status: number | null;
  readonly said: string;
}

const INSTALL = "install OpenSSH's client, or name another program in CAIRN_SSH_COMMAND";

/** Meanings of the last messages of OpenSSH's client, each with a hint. Any other end counts as temporary. */
const MEANINGS: readonly (readonly [RegExp, ErrorCode, (at: string) => string])[] = [
  [
    /host key verification failed/i,
    "refused",
    (at) =>
      `run \`ssh ${at}\` and confirm a new server's key if its fingerprint is right; if a known key has changed, somebody may intercept the connection`,
  ],
  [
    /permission denied|too many authentication failures/i,
    "permission",
    (at) =>
      `check that \`ssh ${at}\` works without a prompt; name a key by IdentityFile in ~/.ssh/config, or load it with ssh-add`,
  ],
  [/could not resolve hostname.*(?:not known|no address|no data)/i, "usage", () => "check the location"],
  [/unable to negotiate|no matching .* found/i, "unsupported", () => "see ssh_config(5) for older algorithms"],
  [/subsystem request failed/i, "unsupported", () => "add a Subsystem sftp to the configuration of the server's sshd"],
  [
    /bad configuration option|bad owner or permissions|terminating, \d+ bad|can't open user config file/i,
    "usage",
    () => "correct ~/.ssh/config or CAIRN_SSH_COMMAND",
  ],
];

function failureOf(target: SshTarget, { how, status, said }: Ended): CairnError {
  const message = `ssh to ${nameOf(target)} ended (${how})${said === "" ? "" : `: ${said}`}`;
  if (status === 126 || status === 127) return new CairnError("unsupported", message, { hint: INSTALL });
  const meaning = MEANINGS.find(([pattern]) => pattern.test(said));
  if (meaning === undefined) return new CairnError("io", message);
  const port = target.port === undefined ? "" : `-p ${target.port} `;
  return new CairnError(meaning[1], message, { hint: meaning[2](`${port}${nameOf(target)}`) });
}

function lastLines(said: string): string {
  const lines = stripVTControlCharacters(said).split(/[\r\n]+/);
  const last = lines.map((line) => line.trim()).filter((line) => line !== "" && !line.startsWith("@@@"));
  return printablePath(last.slice(-LAST_LINES).join("; "));
}

function nameOf({ user, host }: SshTarget): string {
  return user === undefined ? host : `${user}@${host}`;
}
