import { mkdirSync, renameSync } from "node:fs";
import { dirname, join } from "node:path";
import { verifyDirectory } from "../../bundle/export-directory/directory.ts";
import type { ImportDirectoryOptions, ImportDirectoryResult } from "../../contract/export-directory.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { CONTENT } from "../../formats/envelope/envelope.ts";
import { copyInto } from "../../fs/copy-folder.ts";
import { fsyncDirectory, temporaryName } from "../../fs/durable.ts";
import { flushFileSystem } from "../../fs/linux/flush.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { printablePath } from "../../fs/safe-path.ts";
import { throttled } from "../../pacer.ts";
import { freeFolder } from "../../workspace/new-folder/new-folder.ts";
import { realPathOf } from "../../workspace/place/find-workspace.ts";
import { checkLocation } from "../../workspace/place/guards.ts";
import type { LibraryHand } from "../tables/row.ts";

/**
 * Makes a workspace of an export directory. Steps: every file is compared with the envelope; the content is copied below a
 * temporary name beside the new folder; the folder gets its name; it is adopted and saved, and that point's digest has to be the
 * envelope's. A kill after the name leaves a folder with all of the content, that `cairn save` keeps.
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
  const onFile = throttled(options.onProgress);
  const { kind, config, stateDigest, files } = await verifyDirectory(source.toString("utf8"), {
    signal,
    onFile: (done) => onFile({ phase: "verifying", done }),
  });
  if (kind !== "workspace")
    throw new CairnError("usage", `${printablePath(source)} is of a machine`, { hint: "this is for workspaces" });
  const target = freeFolder(folder);
  checkLocation(Buffer.from(target), { allow });
  const stage = join(dirname(target), temporaryName());
  mkdirSync(stage, { mode: 0o700 });
  try {
    await copyInto(Buffer.concat([source, Buffer.from(`/${CONTENT}`)]), Buffer.from(stage), signal);
    await flushFileSystem(stage);
    failpoint("import-directory.copied");
    renameSync(stage, target);
    fsyncDirectory(dirname(target));
  } catch (error) {
    removeAll(stage);
    throw toCairnError(error, `copy ${printablePath(source)}`);
  }
  failpoint("import-directory.named");
  const own = name ?? (isClone ? undefined : config.name);
  const { lockTimeoutMs, onWarning } = options;
  const client = await hand.openOrAdopt(target, {
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
  if (stateDigest === null || saved.payload_root_hash !== stateDigest) {
    await client.release({ deletePoints: true });
    removeAll(target);
    throw new CairnError(
      "damaged",
      `what was copied from ${printablePath(source)} is not the state that was exported`,
      {
        hint: "files are as they were; modes, links or empty folders are not: copy the directory with all its modes and links",
        details: { field: "state_digest", expected: stateDigest, actual: saved.payload_root_hash },
      },
    );
  }
  const { workspace } = client;
  const point = await client.resolve(saved.save_point_id);
  await client.close();
  return {
    workspace,
    save_point: point,
    state_digest: stateDigest,
    files: files.length,
    bytes: files.reduce((sum, { size }) => sum + size, 0),
    duration_ms: Math.round(performance.now() - started),
  };
}
