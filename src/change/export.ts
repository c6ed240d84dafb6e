import { chmodSync, lstatSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import { describeContent } from "../bundle/export-directory/directory.ts";
import { packTar } from "../bundle/export-directory/tar.ts";
import type { ExportPointOptions, ExportPointResult } from "../contract/export-directory.ts";
import { readOperand } from "../contract/operand.ts";
import { advice, CairnError, call, toCairnError, word } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { CONTENT, ENVELOPE, encodeEnvelope, type EnvelopeEntry } from "../formats/envelope/envelope.ts";
import { plural } from "../formats/sizes.ts";
import { durableWrite, fsyncDirectory, fsyncFile, giveFreeName } from "../fs/durable.ts";
import { clearAway, removeAll } from "../fs/remove-all.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import { noteElsewhere, unfinishedBeside } from "../fs/work-directory.ts";
import { throttled } from "../pacer.ts";
import { freeFolder, requireFree } from "../workspace/new-folder/new-folder.ts";
import { requireOutside } from "../workspace/new-folder/restore-to.ts";
import { realPathOf } from "../workspace/place/find-workspace.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { digestOf, envelopeOf, type WrittenState, writeSnapshot, writeState } from "./exported-state.ts";
import { inItsWorkspace, type Looking, placedPoint, requireOwner } from "../look/sources/operands.ts";

/**
 * Writes a point of this or another workspace, a backup, or an entry of one, as an export directory: its content under a
 * temporary name beside the directory; every file is read again for its hash; then the envelope. After all is durable,
 * the rename is the commit. A tar file is packed from that directory, which is then removed.
 */
export async function exportPoint(
  hand: Looking,
  target: string,
  to: string,
  options: ExportPointOptions,
): Promise<ExportPointResult> {
  const { workspace, backups } = hand;
  const directory = options.asTar === true ? freeFile(to) : freeFolder(to);
  requireOutside(workspace, realPathOf(directory));
  const [operand] = readOperand(target);
  if (operand?.kind === "backup") {
    requireOwner();
    return backups(workspace, options, async (access) =>
      writeExport(workspace, directory, options, async (content) =>
        writeSnapshot(access, operand, content, { workspace, options }),
      ),
    );
  }
  const placed = placedPoint(workspace, target);
  return inItsWorkspace(workspace, placed, options, async (owner) =>
    writeExport(owner, directory, options, async (content) => writeState(owner, placed, content, options)),
  );
}

async function writeExport(
  workspace: Workspace,
  directory: string,
  options: ExportPointOptions,
  write: (content: string) => Promise<WrittenState>,
): Promise<ExportPointResult> {
  const started = performance.now();
  requireOutside(workspace, realPathOf(directory));
  const stage = unfinishedBeside(directory);
  // If this process is killed, the workspace's next command and doctor know the place.
  const note = noteElsewhere(workspace.found.control.temporary, dirname(directory));
  try {
    mkdirSync(stage, { mode: 0o700 });
    const state = await write(join(stage, CONTENT));
    const { leftOut, config } = state;
    if (leftOut.length > 0)
      throw new CairnError("incomplete", `${plural(leftOut.length, "entry")} of the state could not be written`, {
        hint: advice`${call("restore POINT --to DIR", "restore", { target: word("target"), to: word("to") })} writes the other entries, and lists those that it could not write`,
      });
    failpoint("export-directory.written");
    const onFile = throttled(options.onProgress);
    const content = await describeContent(stage, {
      signal: options.signal,
      onFile: (done) => onFile({ phase: "verifying", done }),
    });
    const digest = state.digest ?? (await digestOf(workspace, join(stage, CONTENT), options));
    const envelope = envelopeOf(join(stage, CONTENT), { state, digest, content });
    durableWrite(join(stage, ENVELOPE), encodeEnvelope(envelope), { mode: 0o644 });
    failpoint("export-directory.described");
    if (options.asTar === true) await nameTar(stage, directory, content.entries, options.signal);
    else {
      chmodSync(stage, 0o755);
      renameSync(stage, directory);
    }
    fsyncDirectory(dirname(directory));
    return {
      path: directory,
      save_point_id: config.save_point_id,
      state_digest: digest,
      files: content.files.length,
      entries: content.entries.length,
      bytes: content.files.reduce((sum, { size }) => sum + size, 0),
      duration_ms: Math.round(performance.now() - started),
    };
  } catch (error) {
    removeAll(stage);
    const { code } = error as NodeJS.ErrnoException;
    // Another process was faster: a rename does not replace a folder with entries.
    if (code === "ENOTEMPTY" || code === "EEXIST") requireFree(realPathOf(directory));
    if (code === "ENAMETOOLONG")
      throw new CairnError("unsupported", `a path of the point is too long below ${printablePath(directory)}`, {
        hint: advice`use ${call("restore POINT --to DIR", "restore", { target: word("target"), to: word("to") })} or ${call("backup create", "createBackup")} for long paths: in an export a path, with its folder, has at most about 4 000 bytes`,
        cause: error,
      });
    throw toCairnError(error, `write ${printablePath(directory)}`);
  } finally {
    if (note !== null) clearAway(note);
  }
}

/** Returns the real path of a missing file. Throws unless `file` is an absolute path of one. */
function freeFile(file: string): string {
  if (!isAbsolute(file)) throw new CairnError("usage", `the file must be an absolute path, not ${file}`);
  const real = realPathOf(file);
  if (lstatSync(real, { throwIfNoEntry: false }) !== undefined)
    throw new CairnError("already_exists", `${printablePath(real)} is there already`, {
      hint: "name a file that does not exist",
    });
  return real.toString("utf8");
}

/** Packs a directory into a file. The file gets its name when it is durable. */
async function nameTar(
  stage: string,
  file: string,
  entries: readonly EnvelopeEntry[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const socket = entries.find(({ kind }) => kind === "socket");
  if (socket !== undefined)
    throw new CairnError(
      "refused",
      `${printablePath(Buffer.from(socket.name, "latin1"))} is a socket, and a tar file cannot contain sockets`,
      {
        hint: "export the point as a directory instead",
      },
    );
  const packed = unfinishedBeside(file);
  try {
    await packTar(stage, packed, signal);
    fsyncFile(packed);
    failpoint("export-directory.packed");
    giveFreeName(packed, file);
  } finally {
    rmSync(packed, { force: true });
  }
  removeAll(stage);
}
