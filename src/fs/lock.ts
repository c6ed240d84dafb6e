import { closeSync, constants, fstatSync, lstatSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { advice, CairnError, codeOfErrno, option, throwIfAborted, toCairnError } from "../errors.ts";
import {
  kernelLockFromTable,
  kernelLockState,
  kernelLocksAvailable,
  releaseKernelLock,
  tryKernelLock,
} from "./linux/kernel-lock.ts";
import { describeOwner, livenessOf, newOwner } from "./lock-owner.ts";
import type { LockOwner } from "./lock-owner.ts";
import { filesystemKind } from "./linux/mounts.ts";
import { HeartbeatWatch, OwnerFiles, RECORD_BYTES, encodeOwner, readOwner, rewriteOwner } from "./owner-files.ts";
import type { Blocked, Claim } from "./owner-files.ts";
import { openRegular } from "./regular-file.ts";

export interface AcquireOptions {
  /** Milliseconds to wait for another owner; default 10 000, 0 tries once. */
  timeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
  /** Purpose in a word or two; shown to processes that wait. */
  purpose?: string;
  /** True: shares the lock with other shared holders; an exclusive holder excludes all others. */
  shared?: boolean;
  /** Milliseconds after which an unchanged heartbeat means that a remote owner is dead; default 30 000. */
  staleAfterMs?: number;
  /** Milliseconds between two heartbeats of this holder; default 2 000. */
  heartbeatMs?: number;
  /** Called once if another process has the lock, before the wait. */
  onBusy?: (() => void) | undefined;
  /** For tests: uses owner files even if the kernel could decide. */
  forceOwnerFiles?: boolean;
}

export interface Lock {
  readonly path: string;
  readonly shared: boolean;
  /** `none`: a shared lock of a process that cannot write a record. No writer had the lock when it was taken, but a writer may take it any time. */
  readonly mode: "kernel" | "owner-file" | "none";
  /** False once another process has taken the lock over, for example because this process slept too long. Call before a commit. */
  stillHeld(): boolean;
  readonly isReleased: boolean;
  /** Releases the lock; a second call does nothing. */
  release(): void;
  [Symbol.dispose](): void;
  [Symbol.asyncDispose](): Promise<void>;
}

interface Attempt {
  readonly path: string;
  readonly owner: LockOwner;
  readonly files: OwnerFiles;
  readonly watch: HeartbeatWatch;
  /** True if kernel locks decide: a local file system and a working fcntl. */
  kernel: boolean;
  /** True if no other machine writes. */
  readonly local: boolean;
  readonly heartbeatMs: number;
}

const FIRST_PAUSE_MS = 2;
const held = new Set<() => void>();

// Other hosts see owner files: after an orderly end they must not wait for the heartbeat.
function releaseAtExit(): void {
  for (const release of held) release();
}

function makeLock(
  attempt: Attempt,
  mode: Lock["mode"],
  parts: { beat?: () => void; isHeld: () => boolean; release: () => void },
): Lock {
  const timer = parts.beat === undefined ? undefined : setInterval(ignoringErrors(parts.beat), attempt.heartbeatMs);
  timer?.unref();
  let open = true;
  function release(): void {
    if (!open) return;
    open = false;
    clearInterval(timer);
    held.delete(release);
    if (held.size === 0) process.off("exit", releaseAtExit);
    parts.release();
  }
  if (held.size === 0) process.on("exit", releaseAtExit);
  held.add(release);
  return {
    path: attempt.path,
    shared: attempt.owner.shared,
    mode,
    stillHeld: () => open && parts.isHeld(),
    get isReleased() {
      return !open;
    },
    release,
    [Symbol.dispose]: release,
    [Symbol.asyncDispose]: async () => release(),
  };
}

// A missed heartbeat must not end the process; `stillHeld()` detects the loss before a commit.
function ignoringErrors(action: () => void): () => void {
  return () => {
    try {
      action();
    } catch {
      /* told by stillHeld */
    }
  };
}

function openLockFile(attempt: Attempt): { descriptor: number; writable: boolean } | null {
  const { O_RDWR, O_CREAT } = constants;
  try {
    return { descriptor: openRegular(attempt.path, { flags: O_RDWR | O_CREAT }), writable: true };
  } catch (error) {
    if (!attempt.owner.shared || !isReadOnly(error)) throw error;
  }
  try {
    return { descriptor: openRegular(attempt.path), writable: false };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

function isStillNamed(descriptor: number, path: string): boolean {
  const named = lstatSync(path, { throwIfNoEntry: false });
  const opened = fstatSync(descriptor);
  return named !== undefined && named.ino === opened.ino && named.dev === opened.dev;
}

function currentRecord(attempt: Attempt): LockOwner | null {
  const record = readOwner(attempt.path);
  return record !== null && livenessOf(record, attempt.local) !== "dead" ? record : null;
}

function tryByKernel(attempt: Attempt): Lock | Blocked {
  const opened = openLockFile(attempt);
  if (opened === null) return makeLock(attempt, "none", { isHeld: () => true, release: () => undefined });
  const { descriptor, writable } = opened;
  let lock: Lock | undefined;
  try {
    if (!tryKernelLock(descriptor, attempt.owner.shared)) return { holder: currentRecord(attempt) };
    if (!isStillNamed(descriptor, attempt.path)) return { holder: null };
    // Writes the record first, then checks owner files. A process without fcntl checks and writes in the reverse order,
    // so at least one of two concurrent processes sees the other.
    if (writable) writeIfRoom(descriptor, encodeOwner(attempt.owner));
    const blocked = attempt.files.blockers(attempt.owner.shared);
    if (blocked !== null) return blocked;
    lock = kernelLock(attempt, descriptor, writable);
    return lock;
  } finally {
    if (lock === undefined) {
      releaseKernelLock(descriptor);
      closeSync(descriptor);
    }
  }
}

/**
 * Writes a record in place. On a full disk no record is written: btrfs writes even a file's own blocks to a new place.
 * The kernel's lock decides without it, and a process that needs the record cannot write its own there either.
 */
function writeIfRoom(descriptor: number, record: Buffer): void {
  try {
    writeSync(descriptor, record, 0, undefined, 0);
  } catch (error) {
    if (codeOfErrno((error as NodeJS.ErrnoException).code) !== "no_space") throw error;
  }
}

function kernelLock(attempt: Attempt, descriptor: number, writable: boolean): Lock {
  const { path, owner } = attempt;
  let seen = 0;
  const beat = (): void => writeIfRoom(descriptor, encodeOwner({ ...owner, seen: ++seen }));
  return makeLock(attempt, "kernel", {
    ...(writable && !owner.shared ? { beat } : {}),
    isHeld: () => isStillNamed(descriptor, path),
    release: () => {
      try {
        // The file keeps its block, so that the next holder's record has room on a full disk.
        if (writable && !owner.shared) writeIfRoom(descriptor, Buffer.alloc(RECORD_BYTES));
      } catch (error) {
        throw toCairnError(error, `unlock ${path}`);
      } finally {
        releaseKernelLock(descriptor);
        closeSync(descriptor);
      }
    },
  });
}

/** Checks whether a process holds the lock through the kernel, without fcntl. */
function blockedByKernel(attempt: Attempt): Blocked | null {
  const mode = attempt.local ? kernelLockFromTable(attempt.path) : null;
  if (mode !== null) {
    const free = mode === "none" || (attempt.owner.shared && mode === "shared");
    return free ? null : { holder: currentRecord(attempt) };
  }
  // On a network file system the server takes kernel locks, and only their record is visible here. Without /proc/locks
  // the same is true of locks of this machine.
  const record = recordByKernel(attempt);
  return record === null || (attempt.owner.shared && record.shared) ? null : { holder: record };
}

/** Returns the record of a holder through the kernel if the holder may still run. */
function recordByKernel(attempt: Attempt): LockOwner | null {
  const record = readOwner(attempt.path);
  return record === null || attempt.files.isGone(record, "kernel") ? null : record;
}

function isReadOnly(error: unknown): boolean {
  return ["EROFS", "EACCES", "EPERM"].includes((error as NodeJS.ErrnoException).code ?? "");
}

/** Null if this reader cannot write a record: reading is allowed, as in any read-only folder. */
function claimUnlessReadOnly(attempt: Attempt): Claim | Blocked | null {
  try {
    return attempt.files.claim({ ...attempt.owner, shared: false });
  } catch (error) {
    if (attempt.owner.shared && isReadOnly(error)) return null;
    throw error;
  }
}

function tryByOwnerFiles(attempt: Attempt): Lock | Blocked {
  const { files, owner } = attempt;
  const before = blockedByKernel(attempt) ?? files.blockers(owner.shared);
  if (before !== null) return before;
  const claim = claimUnlessReadOnly(attempt);
  if (claim === null) return makeLock(attempt, "none", { isHeld: () => true, release: () => undefined });
  if (!("path" in claim)) return claim;
  const after = blockedByKernel(attempt) ?? files.blockers(owner.shared, claim);
  if (after !== null) {
    files.release(claim);
    return after;
  }
  if (!owner.shared) return ownerFileLock(attempt, claim);
  const shared = files.addShared(owner);
  files.release(claim);
  return ownerFileLock(attempt, shared);
}

function ownerFileLock(attempt: Attempt, claim: Claim): Lock {
  attempt.watch.clear();
  return makeLock(attempt, "owner-file", {
    beat: () => attempt.files.beat(claim),
    isHeld: () => attempt.files.isHeld(claim),
    release: () => attempt.files.release(claim),
  });
}

function tryOnce(attempt: Attempt): Lock | Blocked {
  try {
    return attempt.kernel ? tryByKernel(attempt) : tryByOwnerFiles(attempt);
  } catch (error) {
    // The kernel of a sandbox may lack these locks on a file system that it reports as local. All processes of the sandbox lack them.
    if (attempt.kernel && error instanceof CairnError && error.code === "unsupported") {
      attempt.kernel = false;
      return tryOnce(attempt);
    }
    throw toCairnError(error, `lock ${attempt.path}`);
  }
}

function busyError(attempt: Attempt, holder: LockOwner | null): CairnError {
  const { path, owner } = attempt;
  const what = owner.purpose === "" ? "the workspace is busy" : `cannot ${owner.purpose} now`;
  return new CairnError("busy", `${what}: another command holds the lock ${path}: ${describeOwner(holder)}`, {
    hint: advice`try again when that command has finished, or wait longer: ${option("lockTimeoutMs", "`--lock-timeout 1m`")}`,
    details:
      holder === null
        ? {}
        : {
            holder: {
              host: holder.host,
              pid: holder.pid,
              command: holder.command,
              purpose: holder.purpose,
              since: holder.since,
            },
          },
  });
}

function newAttempt(path: string, options: AcquireOptions): Attempt {
  const place = filesystemKind(dirname(path)).place;
  const local = place === "local" || place === "memory";
  const watch = new HeartbeatWatch(path, options.staleAfterMs ?? 30_000);
  return {
    path,
    owner: newOwner(options.purpose ?? "", options.shared === true),
    files: new OwnerFiles(path, local, watch),
    watch,
    kernel: local && kernelLocksAvailable() && options.forceOwnerFiles !== true,
    local,
    heartbeatMs: options.heartbeatMs ?? 2_000,
  };
}

/**
 * Takes the lock at `path` (a file that stays; its directory must exist), and waits for others up to the timeout.
 * Kernel locks decide on local file systems, records with a heartbeat elsewhere. Takes over from a dead holder. Throws
 * `busy` (retryable, names the holder), `interrupted`, `permission`, `not_found`.
 */
export async function acquireLock(path: string, options: AcquireOptions = {}): Promise<Lock> {
  throwIfAborted(options.signal);
  const attempt = newAttempt(path, options);
  const deadline = performance.now() + (options.timeoutMs ?? 10_000);
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(50, pause * 1.5)) {
    const result = tryOnce(attempt);
    if ("release" in result) return result;
    const left = deadline - performance.now();
    if (left <= 0) throw busyError(attempt, result.holder);
    if (pause === FIRST_PAUSE_MS) options.onBusy?.();
    await pauseFor(Math.min(left, pause * (0.5 + Math.random())), options.signal);
  }
}

async function pauseFor(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(milliseconds, undefined, signal === undefined ? {} : { signal });
  } catch (error) {
    throwIfAborted(signal);
    throw error;
  }
}

/** Returns the exclusive owner of the lock, as far as it can be known without waiting; null if there is none. */
export function lockHolder(path: string): LockOwner | null {
  const attempt = newAttempt(path, {});
  if (lstatSync(path, { throwIfNoEntry: false }) !== undefined && kernelModeNow(attempt) === "exclusive")
    return readOwner(path);
  return attempt.files.blockers(true)?.holder ?? null;
}

function kernelModeNow(attempt: Attempt): "exclusive" | "shared" | "none" {
  if (!attempt.kernel) {
    const mode = kernelLockFromTable(attempt.path);
    if (mode !== null) return mode;
    const record = recordByKernel(attempt);
    return record === null ? "none" : record.shared ? "shared" : "exclusive";
  }
  const descriptor = openRegular(attempt.path);
  try {
    return kernelLockState(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Takes the lock from a holder on another machine whose heartbeat is not old yet. Throws `refused` if the holder runs
 * on this machine: a kernel lock ends only with its process.
 */
export function breakLock(path: string): void {
  const attempt = newAttempt(path, {});
  const holder = lockHolder(path);
  if (holder !== null && livenessOf(holder, attempt.local) === "alive") {
    throw new CairnError(
      "refused",
      `the lock ${path} is held by ${describeOwner(holder)}, which runs on this machine`,
      {
        hint: "end that process, and its lock ends with it",
      },
    );
  }
  attempt.files.breakAll(attempt.owner);
  if (!attempt.local && readOwner(path) !== null) rewriteOwner(path, { ...attempt.owner, released: true });
}
