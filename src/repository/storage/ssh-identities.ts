import { readFileSync } from "node:fs";
import type ssh2Module from "ssh2";
import type { AnyAuthMethod, BaseAgent, ParsedKey } from "ssh2";
import { CairnError } from "../../errors.ts";

export type Ssh2 = typeof ssh2Module;

/** With what a user shows who they are, in the order in which it is tried. */
export interface SshCredentials {
  /** Files of private keys that somebody named. */
  readonly identityFiles: readonly string[];
  /** Tried when none was named; one that is not there or needs a passphrase is passed over. */
  readonly defaultFiles: readonly string[];
  /** Of all private keys that need one. */
  readonly passphrase?: string | undefined;
  /** The agent's socket; null for none. */
  readonly agent: string | null;
  /** True: only those keys of the agent that belong to a named file. */
  readonly identitiesOnly: boolean;
  readonly password?: string | undefined;
}

export interface AuthPlan {
  readonly methods: readonly AnyAuthMethod[];
  /** What was found and what of it cannot be used, for the message of a refusal; never a secret. */
  readonly notes: readonly string[];
}

interface Identity {
  readonly path: string;
  readonly key: ParsedKey | null;
  /** The public key's bytes, also of a private key that cannot be opened. */
  readonly publicKey: Buffer | null;
}

/**
 * What is shown to the server: named keys, the agent's, the usual files, a password. Named keys go first, because a
 * server hangs up after a few wrong ones. A passphrase that does not open a named one is `permission`.
 */
export function authPlan(ssh2: Ssh2, user: string, credentials: SshCredentials): AuthPlan {
  const notes: string[] = [];
  const methods: AnyAuthMethod[] = [];
  const named = credentials.identityFiles.map((path) => readIdentity(ssh2, path, { credentials, notes, named: true }));
  const usual =
    named.length > 0
      ? []
      : credentials.defaultFiles.map((path) => readIdentity(ssh2, path, { credentials, notes, named: false }));
  const keys = (identities: readonly Identity[]): void => {
    for (const { path, key } of identities) {
      if (key === null) continue;
      notes.push(`key ${path}`);
      methods.push({ type: "publickey", username: user, key });
    }
  };
  keys(named);
  if (credentials.agent !== null) {
    const wanted = named.flatMap(({ publicKey }) => (publicKey === null ? [] : [publicKey]));
    const agent = agentWith(ssh2, credentials.agent, { wanted, only: credentials.identitiesOnly });
    notes.push(`agent at ${credentials.agent}`);
    methods.push({ type: "agent", username: user, agent });
  } else notes.push("no agent (SSH_AUTH_SOCK is not set)");
  keys(usual);
  const { password } = credentials;
  if (password !== undefined) {
    notes.push("password");
    methods.push({ type: "password", username: user, password });
    methods.push({
      type: "keyboard-interactive",
      username: user,
      // Only what looks like the question for a password is answered with one.
      prompt: (_name, _instructions, _language, prompts, finish) =>
        finish(prompts.map((prompt) => (prompt.echo === true ? "" : password))),
    });
  }
  return { methods, notes };
}

interface ReadingIdentity {
  readonly credentials: SshCredentials;
  readonly notes: string[];
  readonly named: boolean;
}

function readIdentity(ssh2: Ssh2, path: string, reading: ReadingIdentity): Identity {
  const text = readIfThere(path);
  if (text === null) {
    if (reading.named) reading.notes.push(`${path} is not there`);
    return { path, key: null, publicKey: publicKeyBeside(ssh2, path) };
  }
  const key = ssh2.utils.parseKey(text, reading.credentials.passphrase);
  if (!(key instanceof Error)) {
    const isPrivate = key.isPrivateKey();
    if (!isPrivate && reading.named)
      reading.notes.push(`${path} is a public key, which serves only to choose one of an agent's`);
    return { path, key: isPrivate ? key : null, publicKey: key.getPublicSSH() };
  }
  reading.notes.push(whyNotUsable(path, key, reading));
  return { path, key: null, publicKey: publicKeyBeside(ssh2, path) };
}

function whyNotUsable(path: string, error: Error, reading: ReadingIdentity): string {
  if (/no passphrase given/i.test(error.message)) return `${path} needs a passphrase and none was given`;
  const isPassphrase = /passphrase|integrity check|decrypt|bad decrypt/i.test(error.message);
  if (isPassphrase && reading.named && reading.credentials.passphrase !== undefined) {
    throw new CairnError("permission", `the passphrase does not open the key ${path}`, {
      hint: "check CAIRN_SFTP_PASSPHRASE, or load the key into an agent with ssh-add",
    });
  }
  return `${path} cannot be used (${isPassphrase ? "wrong passphrase" : "its format is not understood"})`;
}

function readIfThere(path: string): Buffer | null {
  try {
    return readFileSync(path);
  } catch {
    return null;
  }
}

function publicKeyBeside(ssh2: Ssh2, path: string): Buffer | null {
  const text = readIfThere(`${path}.pub`);
  const key = text === null ? null : ssh2.utils.parseKey(text);
  return key === null || key instanceof Error ? null : key.getPublicSSH();
}

/** The agent with the wanted keys first, or with those alone. */
function agentWith(
  ssh2: Ssh2,
  socket: string,
  choice: { wanted: readonly Buffer[]; only: boolean },
): BaseAgent<ParsedKey> {
  const agent = new ssh2.OpenSSHAgent(socket);
  const isWanted = (key: ParsedKey): boolean => choice.wanted.some((each) => each.equals(key.getPublicSSH()));
  const all = agent.getIdentities.bind(agent);
  agent.getIdentities = (done) =>
    all((error, keys) => {
      // The library's own agent gives keys and never entries, which its types allow too.
      const found = (keys ?? []) as ParsedKey[];
      if (error instanceof Error) done(error);
      else done(undefined, [...found.filter(isWanted), ...(choice.only ? [] : found.filter((key) => !isWanted(key)))]);
    });
  return agent;
}
