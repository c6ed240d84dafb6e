import { createHash } from "node:crypto";
import { closeSync, createReadStream, fchmodSync, fstatSync, fsyncSync, lstatSync, openSync, rmSync } from "node:fs";
import { join } from "node:path";
import { advice, CairnError, either, line, toCairnError, word } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { durableRename, writeAll } from "../../fs/durable.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { unfinishedBeside } from "../../fs/work-directory.ts";
import { acquireLock } from "../../fs/lock.ts";
import { type Answer, ask, bytesOf, shown } from "./guest.ts";
import { listens, portOf } from "./identity.ts";
import { withMachine } from "./life.ts";
import { Machine, type OperationOptions } from "./machine.ts";
import { runningIn } from "./qemu.ts";

/** Commands and copies of files in a guest, by Cairn's service at a socket. */

/** Milliseconds without an answer after which a copy fails. */
const QUIET_MS = 60_000;

/**
 * Runs `work` with the socket of the service in a machine's guest. One command at a time uses the service. Other
 * operations on the machine can run meanwhile. Throws `not_found`, `busy`, and `conflict` if the machine is not running
 * or its guest has no service.
 */
export async function atPort<T>(
  root: string,
  name: string,
  purpose: string,
  { signal, lockTimeoutMs }: OperationOptions,
  work: (place: string) => Promise<T>,
): Promise<T> {
  const machine = Machine.in(root, name);
  machine.read();
  const waits = { signal, lockTimeoutMs };
  using _lock = await acquireLock(join(machine.folder, "guest.lock"), {
    purpose: `vm ${purpose}`,
    signal,
    timeoutMs: lockTimeoutMs,
  });
  const place = await withMachine(root, name, purpose, waits, async () => {
    using qmp = await runningIn(machine.live);
    if (qmp === null)
      throw new CairnError("conflict", `the machine ${name} is not running`, {
        hint: advice`start it: ${line(`vm start ${name}`, "startMachine", word("machines"), name)}`,
      });
    if (await listens(qmp)) return portOf(machine);
    throw new CairnError("conflict", `no service of Cairn runs in the guest of ${name}`, {
      hint: advice`cloud-init installs the service at the end of the first boot of an image with cloud-init and Python 3: wait for it, or ${either(`log in with cairn vm ssh ${name}`, advice`log in by SSH`)}`,
    });
  });
  return await work(place);
}

interface Streams {
  input: AsyncIterable<Uint8Array>;
  /** Called with the bytes of the command's standard output and standard error. The next ones wait. */
  write(bytes: Buffer, to: "out" | "err"): Promise<void>;
  signal?: AbortSignal | undefined;
}

/** Runs a command in a guest. Returns its exit status, 128 more than the signal that ended it. Throws as `ask`. */
export async function runIn(place: string, argv: readonly string[], streams: Streams): Promise<number> {
  const { input, write, signal } = streams;
  const hear = async (answer: Answer): Promise<void> => {
    for (const to of ["out", "err"] as const) {
      const bytes = bytesOf(answer, to);
      if (bytes !== null) await write(bytes, to);
    }
  };
  const { status } = await ask(place, { do: "exec", argv }, { hear, input: { pieces: input }, signal });
  if (typeof status === "number" && Number.isInteger(status) && status >= 0 && status <= 255) return status;
  throw new CairnError("io", `the guest's service gave no valid exit status: ${shown(status)}`);
}

export interface Copied {
  bytes: number;
  sha256: string;
}

/** Copies a file into a guest. The service compares size and SHA-256, and renames the complete file. Throws as `ask`, `usage`. */
export async function putFile(place: string, file: string, path: string, signal?: AbortSignal): Promise<Copied> {
  const fd = named(`read ${printablePath(file)}`, () => openRegular(file, { named: true }));
  const hash = createHash("sha256");
  let bytes = 0;
  async function* pieces(): AsyncGenerator<Uint8Array> {
    for await (const piece of createReadStream("", { fd }) as AsyncIterable<Buffer>) {
      hash.update(piece);
      bytes += piece.length;
      yield piece;
    }
  }
  let sha256 = "";
  const end = (): object => ({ size: bytes, sha256: (sha256 = hash.digest("hex")) });
  const request = { do: "put", path, mode: fstatSync(fd).mode & 0o777 };
  const done = await ask(place, request, { input: { pieces: pieces(), end }, quietMs: QUIET_MS, signal });
  if (done["sha256"] !== sha256 || done["size"] !== bytes)
    throw new CairnError("io", `the guest's service does not confirm the file ${shown(path)}`);
  return { bytes, sha256 };
}

/** Runs a system call. `doing`: the words for the call in its error. */
function named<T>(doing: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw toCairnError(error, doing);
  }
}

/**
 * Copies a file from a guest under a temporary name, and renames the copy if it has the size and the SHA-256 that the
 * service named. Throws as `ask`, system errors, and `usage` if `file` is not a regular file.
 */
export async function getFile(place: string, path: string, file: string, signal?: AbortSignal): Promise<Copied> {
  const hash = createHash("sha256");
  let [size, mode, bytes] = [-1, 0o600, 0];
  const wrong = (what: string): CairnError => new CairnError("io", `the copy of ${shown(path)} failed: ${what}`);
  if (lstatSync(file, { throwIfNoEntry: false })?.isFile() === false)
    throw new CairnError("usage", `${printablePath(file)} exists, and is not a regular file`, {
      hint: "name a new file",
    });
  const temporary = unfinishedBeside(file);
  const fd = named(`write ${printablePath(temporary)}`, () => openSync(temporary, "wx", 0o600));
  try {
    const hear = (answer: Answer): void => {
      if (size < 0 && typeof answer["size"] === "number") size = answer["size"];
      if (typeof answer["mode"] === "number") mode = answer["mode"] & 0o777;
      const piece = bytesOf(answer, "out");
      if (piece === null) return;
      bytes += piece.length;
      if (bytes > size) throw wrong("the guest sends more bytes than it said");
      hash.update(piece);
      writeAll(fd, piece);
    };
    const done = await ask(place, { do: "get", path }, { hear, quietMs: QUIET_MS, signal });
    failpoint("vm-cp.written");
    const sha256 = hash.digest("hex");
    if (bytes !== size || done["size"] !== size) throw wrong(`${bytes} of ${size} bytes came`);
    if (done["sha256"] !== sha256) throw wrong("its SHA-256 differs");
    fchmodSync(fd, mode);
    fsyncSync(fd);
    durableRename(temporary, file);
    return { bytes, sha256 };
  } finally {
    closeSync(fd);
    rmSync(temporary, { force: true });
  }
}
