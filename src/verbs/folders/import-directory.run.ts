import { verifyDirectory } from "../../bundle/export-directory/directory.ts";
import { namingTar, unpackTar } from "../../bundle/export-directory/tar.ts";
import { changedAfter, momentNow } from "../../clones/walk-entries.ts";
import { advice, CairnError, call, word } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { CONTENT, type Envelope } from "../../formats/envelope/envelope.ts";
import { copyInto } from "../../fs/copy-folder.ts";
import { fsyncDirectory } from "../../fs/durable.ts";
import { flushFileSystem } from "../../fs/linux/flush.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { MadeFolder, removeAll } from "../../fs/remove-all.ts";
import { unfinishedBeside } from "../../fs/work-directory.ts";
import type { LibraryHand } from "../../keep/hand.ts";
import { throttled } from "../../pacer.ts";
import { freeFolder } from "../../workspace/new-folder/new-folder.ts";
import { realPathOf } from "../../workspace/place/find-workspace.ts";
import { checkLocation } from "../../workspace/place/guards.ts";
import type { ImportDirectoryOptions, ImportDirectoryResult } from "./import-directory.ts";
import { mkdirSync, renameSync } from "node:fs";
import { dirname, join } from "node:path";

/**
 * Makes a workspace from an export directory: compares every file with the envelope; copies the content, or first
 * unpacks a tar file, under a temporary name; renames; makes the folder a workspace, saves, and compares the point's digest with the
 * envelope's. A kill after the rename leaves a complete folder, which `cairn save` saves.
 */
export async function importDirectory(
  hand: LibraryHand,
  from: string,
  folder: string,
  options: ImportDirectoryOptions,
): Promise<ImportDirectoryResult> {
  const started = performance.now();
  const { signal, isClone = false, allow, name } = options;
  const source = realPathOf(from);
  const target = freeFolder(folder);
  checkLocation(Buffer.from(target), { allow });
  const envelope = await bring(source, target, options);
  const { config, files } = envelope;
  const stateDigest = envelope.stateDigest!;
  using made = new MadeFolder(target);
  made.hold();
  const since = await momentNow();
  failpoint("import-directory.named");
  const own = name ?? (isClone ? undefined : config.name);
  const { lockTimeoutMs, onWarning } = options;
  await using client = await hand.openOrInit(target, {
    ...(own === undefined ? {} : { name: own }),
    ...(allow === undefined ? {} : { allow }),
    ...(signal === undefined ? {} : { signal }),
    ...(lockTimeoutMs === undefined ? {} : { lockTimeoutMs }),
    ...(onWarning === undefined ? {} : { onWarning }),
  });
  const cause = isClone ? { kind: "clone" } : { kind: "import", from: config };
  const saved = await client.save({
    message: isClone ? "cloned" : `imported from ${config.name}`,
    cause,
    ...(signal === undefined ? {} : { signal }),
  });
  if (saved.payload_root_hash !== stateDigest) {
    await client.release({ deletePoints: true });
    const isLeft = (await changedAfter(Buffer.from(target), since)) !== null || !made.remove();
    const stays = isLeft ? `; ${printablePath(target)} stays, because another program changed it` : "";
    throw new CairnError(
      "damaged",
      `the copy of ${printablePath(source)} does not have the exported state digest${stays}`,
      {
        hint: "copy the directory with all its modes, links and empty folders: the content of the files is correct, but some of these differ",
        details: { field: "state_digest", expected: stateDigest, actual: saved.payload_root_hash },
      },
    );
  }
  const { workspace } = client;
  const point = await client.resolve(saved.save_point_id);
  return {
    workspace,
    save_point: point,
    state_digest: stateDigest,
    files: files.length,
    bytes: files.reduce((sum, { size }) => sum + size, 0),
    duration_ms: Math.round(performance.now() - started),
  };
}

/** Copies the content of a directory, or of its tar file, and gives it the name of the new folder. */
async function bring(
  source: Buffer,
  target: string,
  { isTar = false, signal, onProgress }: ImportDirectoryOptions,
): Promise<Envelope> {
  const stage = unfinishedBeside(target);
  const onFile = throttled(onProgress);
  const verified = async (directory: string): Promise<Envelope> => {
    const envelope = await verifyDirectory(directory, {
      signal,
      onFile: (done) => onFile({ phase: "verifying", done }),
    });
    if (envelope.kind !== "workspace")
      throw new CairnError("usage", `${printablePath(source)} is the export of a machine, not of a workspace`, {
        hint: advice`make a machine of it with: ${call("vm clone --from", "cloneMachine", word("machines"), word("name"), { fromDirectory: word("fromDirectory") })}`,
      });
    if (envelope.stateDigest === null)
      throw new CairnError(
        "damaged",
        `the envelope of ${printablePath(source)} has no state_digest, which proves a copy`,
      );
    return envelope;
  };
  let envelope;
  try {
    if (isTar) {
      mkdirSync(stage, { mode: 0o700 });
      await unpackTar(source.toString("utf8"), stage, signal);
      envelope = await verified(stage);
    } else {
      envelope = await verified(source.toString("utf8"));
      mkdirSync(stage, { mode: 0o700 });
      await copyInto(Buffer.concat([source, Buffer.from(`/${CONTENT}`)]), Buffer.from(stage), signal);
    }
    await flushFileSystem(stage);
    failpoint("import-directory.copied");
    renameSync(isTar ? join(stage, CONTENT) : stage, target);
    fsyncDirectory(dirname(target));
  } catch (error) {
    removeAll(stage);
    throw namingTar(error, `copy ${printablePath(source)}`, { stage, tar: printablePath(source) });
  }
  if (isTar) removeAll(stage);
  return envelope;
}
