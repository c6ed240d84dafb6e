import { closeSync, constants, fstatSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { CairnError } from "../errors.ts";
import { printablePath, type RawPath } from "./paths/safe-path.ts";

const { O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_TRUNC, O_WRONLY } = constants;

export interface RegularFileOptions {
  /** Flags of open(2); `O_RDONLY` unless told. A new file is 0600. */
  flags?: number;
  /** True: a user names the file, who may give a link to it. What is wrong with it is `usage` then, and `damaged` otherwise. */
  named?: boolean;
}

/**
 * Opens a regular file, and never waits: opening a pipe would, for somebody at its other end. The caller closes the
 * descriptor. Throws what the system says, and `damaged` or `usage` for a link and for what is no regular file.
 */
export function openRegular(path: RawPath, { flags = O_RDONLY, named = false }: RegularFileOptions = {}): number {
  let descriptor: number;
  try {
    descriptor = openSync(path, flags | O_NONBLOCK | (named ? 0 : O_NOFOLLOW), 0o600);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ELOOP") throw irregular(path, named, named ? "a link in a loop of links" : "a link");
    if (code === "EISDIR") throw irregular(path, named, "a folder");
    if (code === "ENXIO") throw irregular(path, named, "a pipe, socket or device");
    throw error;
  }
  try {
    const facts = fstatSync(descriptor);
    if (facts.isFile()) return descriptor;
    throw irregular(path, named, facts.isDirectory() ? "a folder" : "a pipe, socket or device");
  } catch (error) {
    closeSync(descriptor);
    throw withPath(error, path);
  }
}

/** The names by which a shell hands something over, `<(command)` or stdin: a pipe that has a writer. */
const HANDED_OVER = /^\/dev\/(?:stdin|fd\/\d+)$|^\/proc\/(?:self|\d+)\/fd\/\d+$/;

/** The bytes of a regular file, or of what the shell hands over to a user's command. Throws as `openRegular` does, also beyond `limit` bytes. */
export function readRegular(path: RawPath, options: RegularFileOptions & { limit?: number } = {}): Buffer {
  const { named = false, limit = Number.MAX_SAFE_INTEGER } = options;
  if (named && typeof path === "string" && HANDED_OVER.test(path)) return readFileSync(path);
  const descriptor = openRegular(path, options);
  try {
    const { size } = fstatSync(descriptor);
    if (size <= limit) return readFileSync(descriptor);
    const message = `${printablePath(path)} has ${size} bytes; at most ${limit} are expected`;
    throw new CairnError(named ? "usage" : "damaged", message);
  } catch (error) {
    throw withPath(error, path);
  } finally {
    closeSync(descriptor);
  }
}

/** Writes over a regular file, or makes it; with `O_APPEND` instead of `O_TRUNC` in `flags` at its end. Nothing is flushed. Throws as `openRegular` does. */
export function writeRegular(
  path: string,
  content: string | Uint8Array,
  flags: number = O_WRONLY | O_CREAT | O_TRUNC,
): void {
  const descriptor = openRegular(path, { flags });
  try {
    writeFileSync(descriptor, content);
  } catch (error) {
    throw withPath(error, path);
  } finally {
    closeSync(descriptor);
  }
}

/** A failure on a descriptor, which the system tells without a path. */
function withPath(error: unknown, path: RawPath): unknown {
  const failed = error as NodeJS.ErrnoException;
  if (failed.syscall !== undefined && failed.path === undefined) failed.message += ` '${printablePath(path)}'`;
  return error;
}

function irregular(path: RawPath, named: boolean, found: string): CairnError {
  return new CairnError(named ? "usage" : "damaged", `${printablePath(path)} is ${found}; a regular file is wanted`);
}
