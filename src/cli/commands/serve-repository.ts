import { existsSync, realpathSync, statSync } from "node:fs";
import { join } from "node:path";
import { isLoopback, parseListen } from "../../daemon/listen-address.ts";
import { Credentials, htpasswdLine } from "../../api/repository-server/credentials.ts";
import { RepositoryServer } from "../../api/repository-server/server.ts";
import { TlsFiles } from "../../api/tls-files.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { serverOptions } from "../definitions.ts";
import { usage } from "../input.ts";
import type { Input } from "../input.ts";
import { aborted } from "../process-signal.ts";
import { printable } from "../render/format.ts";

const LISTEN = "127.0.0.1:8000";
const MAX_FILE_BYTES = 1 << 30;
const MAX_PASSWORD_LENGTH = 4096;

const SERVER = serverOptions({ listen: LISTEN, secret: "password" });

export const command: CommandDefinition = {
  name: "serve-repository",
  options: [
    { flags: "--path <dir>", text: "the folder with the repositories" },
    SERVER.listen,
    {
      flags: "--htpasswd <file>",
      text: "file with the users, one line each from --hash-password or `htpasswd -B` (default: .htpasswd in --path, if it exists)",
      excludes: ["--no-auth"],
    },
    SERVER.noAuth,
    {
      flags: "--private-repositories",
      text: "give each user access only to the folder with the user's name",
      excludes: ["--no-auth"],
    },
    { flags: "--append-only", text: "refuse to delete or change anything except locks" },
    {
      flags: "--tls <file>",
      text: "PEM file with the certificate, its chain and the private key, read again after a renewal; or two files: the certificate first, then the key; may be repeated",
      repeat: true,
    },
    SERVER.check,
    { flags: "--hash-password <user>", text: "print a line for --htpasswd; reads the password from stdin" },
  ],
  examples: [
    { line: "cairn serve-repository --path /srv/backups --no-auth", text: "for this machine only, on port 8000" },
    {
      line: "cairn serve-repository --hash-password alice >> /etc/cairn/users",
      text: "add a user; the password is asked for, or read from a pipe",
    },
    {
      line: "cairn serve-repository --path /srv/backups --listen 0.0.0.0:8000 --htpasswd /etc/cairn/users --private-repositories --append-only --tls cert.pem --tls key.pem",
      text: "for other machines; alice uses rest:https://alice:PASSWORD@host:8000/alice/",
    },
  ],
  async run(context, input) {
    const user = input.text("hashPassword");
    if (user !== undefined) {
      const line = await htpasswdLine(user, await newPassword(context, user));
      return { data: { htpasswd_line: line }, text: () => line };
    }
    const settings = readSettings(context, input);
    const server = await RepositoryServer.start({
      ...settings,
      onProblem: (message) => context.diagnose(printable(message)),
    });
    const { root, appendOnly, privateRepositories } = settings;
    const data = {
      url: server.url,
      repository: `rest:${server.url}${privateRepositories ? "USER/" : ""}`,
      path: root,
      append_only: appendOnly,
      private_repositories: privateRepositories,
      authentication: settings.credentials === null ? "none" : "htpasswd",
      tls: settings.tls !== undefined,
    };
    const outcome: Outcome = {
      data,
      text: () =>
        `${input.flag("check") ? "would serve" : "serving"} ${printable(root)} at ${context.style.cyan(data.repository)}${appendOnly ? ", append-only" : ""}`,
    };
    if (input.flag("check")) {
      await server.stop();
      return outcome;
    }
    return {
      ...outcome,
      async afterwards() {
        await aborted(context.signal);
        await server.stop();
      },
    };
  },
};

type Settings = Omit<Parameters<typeof RepositoryServer.start>[0], "onProblem">;

function readSettings(context: Context, input: Input): Settings {
  const path = input.text("path");
  if (path === undefined || path === "") throw usage("--path is needed: the folder with the repositories");
  const root = servedFolder(context.place(path));
  const { host, port } = parseListen(input.text("listen") ?? LISTEN, "--listen");
  const tls = readTls(context, input);
  const credentials = readCredentials(context, input, root);
  const privateRepositories = input.flag("privateRepositories");
  if (!isLoopback(host)) {
    if (credentials === null)
      context.note(`every client that can reach ${host}:${port} may read, write and delete here`);
    else if (tls === undefined) context.note("without --tls, passwords are sent unencrypted");
  }
  return {
    root,
    host,
    port,
    credentials,
    privateRepositories,
    appendOnly: input.flag("appendOnly"),
    maximumFileBytes: MAX_FILE_BYTES,
    ...(tls === undefined ? {} : { tls }),
  };
}

function servedFolder(path: string): string {
  try {
    const root = realpathSync(path);
    if (statSync(root).isDirectory()) return root;
  } catch (error) {
    const wrapped = toCairnError(error, "the folder of --path");
    if (wrapped.code !== "not_found") throw wrapped;
    throw new CairnError("not_found", `there is no folder ${path}`, { hint: `create it first: mkdir -m 700 ${path}` });
  }
  throw new CairnError("not_found", `${path} is not a folder`);
}

function readTls(context: Context, input: Input): TlsFiles | undefined {
  const [certificate, key = certificate, ...more] = input.list("tls");
  if (certificate === undefined || key === undefined) return undefined;
  if (more.length > 0) throw usage("--tls takes one file, or the certificate and then its key");
  return new TlsFiles(context.absolute(certificate), context.absolute(key));
}

/** Reads the users. restic's own server looks for `.htpasswd` in the folder that it serves. */
function readCredentials(context: Context, input: Input, root: string): Credentials | null {
  const beside = join(root, ".htpasswd");
  const open = input.denied("auth");
  const file = input.text("htpasswd") ?? (!open && existsSync(beside) ? beside : undefined);
  if (open) return null;
  if (file === undefined)
    throw usage(
      "no authentication is chosen: give --htpasswd FILE, or allow every client with --no-auth",
      "create lines of FILE with --hash-password USER",
    );
  return Credentials.open(context.absolute(file), (message) => context.diagnose(printable(message)));
}

/** Asks on a terminal, else reads the first line of stdin. */
async function newPassword(context: Context, user: string): Promise<string> {
  const { cwd, env, signal } = context;
  if (process.stdin.isTTY) {
    const { askPassword } = await import("../password.ts");
    const question = `password of ${user}`;
    const given = await askPassword({ variable: "REST_PASSWORD", question, twice: true, cwd, env, signal });
    if (given.former !== null) throw usage("the password of a user must be UTF-8");
    return Buffer.from(given.bytes).toString("utf8");
  }
  let text = "";
  for await (const chunk of process.stdin.setEncoding("utf8")) {
    text += chunk as string;
    if (text.includes("\n") || text.length > MAX_PASSWORD_LENGTH) break;
  }
  return text.split(/\r?\n/)[0] ?? "";
}
