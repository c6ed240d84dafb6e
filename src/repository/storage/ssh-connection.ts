import type { Duplex } from "node:stream";
import type { AnyAuthMethod, Client, NextAuthHandler, ServerHostKeyAlgorithm, SFTPWrapper } from "ssh2";
import { CairnError, throwIfAborted } from "../../errors.ts";
import { authPlan, type AuthPlan, type Ssh2, type SshCredentials } from "./ssh-identities.ts";
import { fingerprintOf, keyTypeOf, KnownHosts } from "./ssh-known-hosts.ts";
import { commandTo, portOf, type SshTransport } from "./ssh-transport.ts";

export interface SshTarget {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  /** Under which the host's key is noted (`knownHostName`). */
  readonly knownAs: string;
  /** Read at each connection; the first is the one that hints name. */
  readonly knownHostsFiles: readonly string[];
  readonly credentials: SshCredentials;
  /** From the first packet to an open session, milliseconds. Default 30 s. */
  readonly connectTimeoutMs?: number | undefined;
  /** Without any answer while one is waited for, milliseconds; then the connection counts as broken. Default 2 minutes. */
  readonly silenceMs?: number | undefined;
  /** Another host that it is reached through, or a shell's command whose input and output lead there. Default: its port. */
  readonly via?: SshTarget | { readonly command: string } | undefined;
}

const CONNECT_MS = 30_000;
/** For the server to hang up by itself. */
const GOODBYE_MS = 2000;

/** By the type under which a key is noted; an RSA key signs with SHA-2, never with SHA-1. */
const HOST_KEY_ALGORITHMS: Readonly<Record<string, readonly ServerHostKeyAlgorithm[]>> = {
  "ssh-ed25519": ["ssh-ed25519"],
  "ecdsa-sha2-nistp256": ["ecdsa-sha2-nistp256"],
  "ecdsa-sha2-nistp384": ["ecdsa-sha2-nistp384"],
  "ecdsa-sha2-nistp521": ["ecdsa-sha2-nistp521"],
  "ssh-rsa": ["rsa-sha2-512", "rsa-sha2-256"],
};

/** What is asked of the server, the types of known keys first: it must not show a key that nobody has noted when it has one that is. */
export function hostKeyAlgorithms(knownTypes: readonly string[]): ServerHostKeyAlgorithm[] {
  const types = [
    ...knownTypes.filter((type) => Object.hasOwn(HOST_KEY_ALGORITHMS, type)),
    ...Object.keys(HOST_KEY_ALGORITHMS),
  ];
  return [...new Set(types)].flatMap((type) => HOST_KEY_ALGORITHMS[type]!);
}

/**
 * An authenticated connection to an SSH server whose host key is known. Once broken it stays so and everything that
 * waits fails with an error that may pass; a new one is to be opened. It keeps the process alive only while an answer
 * is waited for.
 */
export class SshConnection {
  readonly #client: Client;
  readonly #transport: SshTransport;
  readonly #name: string;
  readonly #silenceMs: number;
  readonly #waiting = new Set<(error: CairnError) => void>();
  #failure: CairnError | null = null;
  #silence: NodeJS.Timeout | null = null;

  private constructor(client: Client, transport: SshTransport, target: SshTarget) {
    this.#client = client;
    this.#transport = transport;
    this.#name = nameOf(target);
    this.#silenceMs = target.silenceMs ?? 120_000;
    const lost = (): void => this.fail(`the connection to ${this.#name} was lost`);
    client.on("close", lost).on("end", lost);
    // Said goodbye to, or lost: what lies on the way is not needed any more.
    client.on("close", () => transport.destroy());
    client.on("error", (error) => this.fail(`the connection to ${this.#name} failed: ${error.message}`, error));
    transport.unref();
  }

  /**
   * `refused` for a host key that is not known, was changed or revoked; `permission` when the server does not let the
   * user in; `unsupported` when the two have no algorithm in common; `io` for what may pass; `interrupted` when the signal fires
   * before it is open.
   */
  static async open(target: SshTarget, signal?: AbortSignal): Promise<SshConnection> {
    throwIfAborted(signal);
    // Read first: a file that cannot be read must not look like a host without a key.
    const knownHosts = KnownHosts.read(target.knownHostsFiles);
    const { default: ssh2 } = await import("ssh2");
    const plan = authPlan(ssh2, target.user, target.credentials);
    const transport = await transportTo(target, signal);
    const client = await handshake(ssh2, target, { knownHosts, plan, transport, signal });
    return new SshConnection(client, transport, target);
  }

  /** A way through it to another host's port; destroying that closes this connection. */
  async #passage(host: string, port: number): Promise<SshTransport> {
    const stream = await this.ask<Duplex>(`reach ${host}:${port}`, (done) =>
      this.#client.forwardOut("127.0.0.1", 0, host, port, done),
    );
    return {
      stream,
      said: () => "",
      ref: () => this.#transport.ref(),
      unref: () => this.#transport.unref(),
      destroy: () => {
        stream.destroy();
        this.close();
      },
    };
  }

  static async through(jump: SshTarget, target: SshTarget, signal?: AbortSignal): Promise<SshTransport> {
    const { host, port, connectTimeoutMs = CONNECT_MS } = target;
    const connection = await SshConnection.open(jump, signal);
    // It waits for the host behind, which may be silent for longer than anybody wants to wait.
    const timer = setTimeout(() => {
      connection.fail(`no answer from there within ${Math.round(connectTimeoutMs / 1000)} s`);
    }, connectTimeoutMs);
    const stop = (): void => connection.stop();
    signal?.addEventListener("abort", stop, { once: true });
    try {
      return await connection.#passage(host, port);
    } catch (error) {
      connection.close();
      if (connection.failure?.code === "interrupted") throw connection.failure;
      throw new CairnError("io", `cannot reach ${host}:${port} through ${nameOf(jump)}: ${(error as Error).message}`, {
        hint: "see whether the host between forwards ports (AllowTcpForwarding)",
        cause: error,
      });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    }
  }

  /** Null while it can be used. */
  get failure(): CairnError | null {
    return this.#failure;
  }

  /** A further SFTP channel. */
  openSftp(): Promise<SFTPWrapper> {
    return this.ask("open an SFTP session", (done) => this.#client.sftp(done));
  }

  /** Sends something and waits for its answer; fails when the connection breaks first, or when it is silent for too long. */
  ask<T>(doing: string, send: (done: (error: Error | null | undefined, value?: T) => void) => void): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== null) {
        reject(this.#failure);
        return;
      }
      const settle = (): void => {
        this.#waiting.delete(reject);
        this.#heard();
      };
      this.#waiting.add(reject);
      if (this.#waiting.size === 1) this.#listen();
      try {
        send((error, value) => {
          settle();
          if (error === null || error === undefined) resolve(value as T);
          else reject(error);
        });
      } catch (error) {
        settle();
        reject(
          this.#failure ??
            new CairnError("io", `cannot ${doing} at ${this.#name}: ${(error as Error).message}`, { cause: error }),
        );
      }
    });
  }

  /** Breaks it with an error that may pass. */
  fail(message: string, cause?: unknown): void {
    if (this.#failure !== null) return;
    this.#end(message, cause);
    this.#transport.destroy();
  }

  /** Ends it at once; everything that waits fails with `interrupted`. */
  stop(): void {
    if (this.#failure !== null) return;
    this.#end("stopped by the caller", undefined, "interrupted");
    this.#transport.destroy();
  }

  /** Says goodbye. */
  close(): void {
    if (this.#failure !== null) return;
    this.#end(`the connection to ${this.#name} was closed`);
    this.#client.end();
    setTimeout(() => this.#transport.destroy(), GOODBYE_MS).unref();
  }

  #end(message: string, cause?: unknown, code: "io" | "interrupted" = "io"): void {
    this.#failure = new CairnError(code, message, cause === undefined ? {} : { cause });
    if (this.#silence !== null) clearTimeout(this.#silence);
    for (const reject of this.#waiting) reject(this.#failure);
    this.#waiting.clear();
    this.#transport.unref();
  }

  #listen(): void {
    this.#transport.ref();
    this.#silence = setTimeout(() => {
      this.fail(`${this.#name} has not answered for ${Math.round(this.#silenceMs / 1000)} s`);
    }, this.#silenceMs);
  }

  #heard(): void {
    if (this.#failure !== null) return;
    if (this.#waiting.size > 0) {
      this.#silence?.refresh();
      return;
    }
    if (this.#silence !== null) clearTimeout(this.#silence);
    this.#silence = null;
    this.#transport.unref();
  }
}

function transportTo(target: SshTarget, signal: AbortSignal | undefined): SshTransport | Promise<SshTransport> {
  const { via, host, port } = target;
  if (via === undefined) return portOf(host, port);
  return "command" in via ? commandTo(via.command) : SshConnection.through(via, target, signal);
}

interface Handshake {
  readonly knownHosts: KnownHosts;
  readonly plan: AuthPlan;
  readonly transport: SshTransport;
  readonly signal: AbortSignal | undefined;
}

function handshake(ssh2: Ssh2, target: SshTarget, how: Handshake): Promise<Client> {
  const { transport, signal } = how;
  const client = new ssh2.Client();
  const timeoutMs = target.connectTimeoutMs ?? CONNECT_MS;
  return new Promise((resolve, reject) => {
    let failure: CairnError | null = null;
    const fail = (error: CairnError): void => {
      failure ??= error;
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      reject(failure);
      transport.destroy();
    };
    const timer = setTimeout(() => {
      fail(new CairnError("io", `${nameOf(target)} did not let us in within ${Math.round(timeoutMs / 1000)} s`));
    }, timeoutMs);
    const stop = (): void => fail(new CairnError("interrupted", "stopped by the caller"));
    // It may have fired while the way there was made.
    if (signal?.aborted === true) return stop();
    signal?.addEventListener("abort", stop, { once: true });
    client.on("ready", () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      client.removeListener("close", onClose);
      client.removeListener("error", onError);
      resolve(client);
    });
    const onClose = (): void =>
      fail(new CairnError("io", `${nameOf(target)} closed the connection before it let us in`));
    const onError = (error: Error & { level?: string }): void => {
      // An agent that cannot be asked is one way less; the next is tried.
      if (error.level !== "agent") fail(failureOf(error, target, how));
    };
    client.on("error", onError).on("close", onClose);
    // What comes after the end is nobody's business any more.
    client.on("error", () => undefined);
    const hostVerifier = (key: Buffer): boolean => {
      const refusal = refusalOf(key, target, how.knownHosts);
      if (refusal !== null) fail(refusal);
      return refusal === null;
    };
    transport.ref();
    try {
      transport.begin?.();
      client.connect({
        sock: transport.stream,
        username: target.user,
        readyTimeout: 0,
        hostVerifier,
        algorithms: { serverHostKey: hostKeyAlgorithms(how.knownHosts.keyTypes(target.knownAs)) },
        authHandler: methodByMethod(how.plan.methods),
      });
    } catch (error) {
      fail(new CairnError("io", `cannot connect to ${nameOf(target)}: ${(error as Error).message}`, { cause: error }));
    }
  });
}

/** Each method once, without those that the server does not offer. */
function methodByMethod(
  methods: readonly AnyAuthMethod[],
): (left: string[] | null, partial: boolean | null, next: NextAuthHandler) => void {
  const queue = [...methods];
  return (left, _partial, next) => {
    for (let method = queue.shift(); method !== undefined; method = queue.shift()) {
      const asked = method.type === "agent" ? "publickey" : method.type;
      if (left !== null && !left.includes(asked)) continue;
      next(method);
      return;
    }
    // The library's word for the end, which its types leave out.
    (next as (nothing: unknown) => void)(false);
  };
}

/** Why a host key is not accepted; null when it is known. */
function refusalOf(key: Buffer, target: SshTarget, knownHosts: KnownHosts): CairnError | null {
  const found = knownHosts.check(target.knownAs, key);
  if (found.verdict === "known") return null;
  const [type, fingerprint] = [keyTypeOf(key), fingerprintOf(key)];
  const shown = `the ${type} key ${fingerprint}`;
  const line = `${target.knownAs} ${type} ${key.toString("base64")}`;
  const details = { fingerprint, line };
  const port = target.port === 22 ? "" : `-p ${target.port} `;
  const file = target.knownHostsFiles[0] ?? "~/.ssh/known_hosts";
  if (found.verdict === "revoked") {
    return new CairnError("refused", `${nameOf(target)} shows ${shown}, which is revoked (${found.place})`, {
      hint: "somebody else may hold this key: ask who runs the server for its new one",
      details,
    });
  }
  if (found.verdict === "changed") {
    const noted = `${found.fingerprint} is noted (${found.place})`;
    return new CairnError(
      "refused",
      `the host key of ${nameOf(target)} is not the one that is known: it shows ${shown}, ${noted}`,
      {
        hint: `somebody may be in between. When the server has a new key and its fingerprint is right, remove the old one: ssh-keygen -R '${target.knownAs}' -f ${file}`,
        details,
      },
    );
  }
  return new CairnError("refused", `the host key of ${nameOf(target)} is not known: it shows ${shown}`, {
    hint: `when the fingerprint is right, connect once by ssh ${port}${target.user}@${target.host}, or add this line to ${file}: ${line}`,
    details,
  });
}

const TOO_MANY = /too many authentication failures/i;

function failureOf(
  error: Error & { level?: string; code?: unknown },
  target: SshTarget,
  { plan, transport }: Handshake,
): CairnError {
  const name = nameOf(target);
  if (error.level === "client-authentication" || TOO_MANY.test(error.message)) {
    const tried = plan.notes.length === 0 ? "there was nothing to show" : `found: ${plan.notes.join(", ")}`;
    const why = TOO_MANY.test(error.message) ? " (too many keys were wrong)" : "";
    return new CairnError("permission", `${name} does not let ${target.user} in${why}; ${tried}`, {
      hint: `see whether ssh -p ${target.port} ${target.user}@${target.host} works; name a key with CAIRN_SFTP_KEY_FILE or IdentityFile in ~/.ssh/config, or load it with ssh-add`,
      cause: error,
    });
  }
  if (error.code === "ENOTFOUND") {
    return new CairnError("usage", `there is no host ${target.host}`, { hint: "check the location", cause: error });
  }
  if (/no matching|handshake failed/i.test(error.message)) {
    return new CairnError("unsupported", `${name} and this program have no algorithm in common: ${error.message}`, {
      hint: "signatures with SHA-1 are not accepted: the server may be too old",
      cause: error,
    });
  }
  return new CairnError("io", `cannot connect to ${name}: ${transport.said() || error.message}`, { cause: error });
}

function nameOf(target: SshTarget): string {
  const host = target.host.includes(":") ? `[${target.host}]` : target.host;
  return `${host}:${target.port}`;
}
