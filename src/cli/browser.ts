import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, constants, lstatSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { pidIsAlive } from "../fs/lock-owner.ts";
import { writeRegular } from "../fs/regular-file.ts";
import { absolutePath, userCacheDirectory } from "../fs/users.ts";

type Environment = Readonly<Record<string, string | undefined>>;

const FILE = /^open-(\d+)-[\w-]+\.html$/;

/** A file that sends a browser to an address with a secret code, which the list of processes would otherwise show. */
export interface OpenedPage {
  /** Removes the file. A second call does nothing. */
  remove(): void;
}

/** True if this terminal's person can see a browser. */
export function hasDisplay(env: Environment): boolean {
  const isSet = (name: string): boolean => (env[name] ?? "") !== "";
  return !isSet("SSH_CONNECTION") && (isSet("DISPLAY") || isSet("WAYLAND_DISPLAY"));
}

/** Opens an address in the desktop's browser. `lifeMs`: milliseconds after which the file of a killed command is removed. */
export function openInBrowser(
  address: string,
  { env, lifeMs, onProblem }: { env: Environment; lifeMs: number; onProblem: (message: string) => void },
): OpenedPage {
  const folder = pagesFolder(env);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  // Fails if another user owns the folder.
  chmodSync(folder, 0o700);
  removeLeftPages(folder, lifeMs);
  const file = join(folder, `open-${process.pid}-${randomBytes(6).toString("base64url")}.html`);
  const { O_CREAT, O_EXCL, O_WRONLY } = constants;
  const html = `<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer"><meta http-equiv="refresh" content="0; url=${address}"><title>Cairn</title><a href="${address}">Open Cairn</a>\n`;
  writeRegular(file, html, O_WRONLY | O_CREAT | O_EXCL);
  const child = spawn("xdg-open", [file], { detached: true, stdio: "ignore", env });
  const failed = (why: string): void => onProblem(`no browser was opened (${why}): open the address yourself`);
  child.once("error", (error) => failed(error.message));
  child.once("exit", (status) => status !== null && status !== 0 && failed(`xdg-open ended with ${status}`));
  child.unref();
  return { remove: () => rmSync(file, { force: true }) };
}

/** The folder of files that open pages; only this user can read it. */
export function pagesFolder(env: Environment): string {
  const runtime = absolutePath(env, "XDG_RUNTIME_DIR");
  return runtime === null ? join(userCacheDirectory(env), "ui") : join(runtime, "cairn", "ui");
}

function removeLeftPages(folder: string, lifeMs: number): void {
  for (const name of readdirSync(folder)) {
    const pid = FILE.exec(name)?.[1];
    const file = join(folder, name);
    const written = pid === undefined ? undefined : lstatSync(file, { throwIfNoEntry: false })?.mtimeMs;
    if (written === undefined) continue;
    if (Date.now() - written > lifeMs || !pidIsAlive({ pid: Number(pid), start_time: "" }))
      rmSync(file, { force: true });
  }
}
