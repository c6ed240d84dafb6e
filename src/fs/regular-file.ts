import { closeSync, constants, fstatSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { CairnError } from "../errors.ts";
import { printablePath, type RawPath } from "./paths/safe-path.ts";

const { O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_TRUNC, O_WRONLY } = constants;

export interface RegularFileOptions {
  /** Flags of open(2); default `O_RDONLY`. A new file has mode 0600. */
  flags?: number;
  /** True: a user named the file, which may be a link. Errors are then `usage`, else `damaged`. */
  named?: boolean;
}

/**
 * Opens a regular file and never waits, as opening a pipe would. The caller closes the descriptor. Throws system
 * errors, and `damaged` or `usage` for a link or another kind of file.
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

/** Paths by which a shell passes content, `<(command)` or stdin: a pipe with a writer. */
const HANDED_OVER = /^\/dev\/(?:stdin|fd\/\d+)$|^\/proc\/(?:self|\d+)\/fd\/\d+$/;

/**
 * Returns the bytes of a regular file, or of a pipe that the shell passes to a user's command. Throws the errors of
 * `openRegular()`, and the same codes beyond `limit` bytes.
 */
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

/**
 * Overwrites or makes a regular file; with `O_APPEND` instead of `O_TRUNC` in `flags` appends to it. Nothing is
 * flushed. Throws the errors of `openRegular()`.
 */
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

/** Adds the path to an error of a descriptor, which the system reports without a path. */
function withPath(error: unknown, path: RawPath): unknown {
  const failed = error as NodeJS.ErrnoException;
  if (failed.syscall !== undefined && failed.path === undefined) failed.message += ` '${printablePath(path)}'`;
  return error;
}

function irregular(path: RawPath, named: boolean, found: string): CairnError {
  return new CairnError(named ? "usage" : "damaged", `${printablePath(path)} is ${found}; a regular file is wanted`);
}
