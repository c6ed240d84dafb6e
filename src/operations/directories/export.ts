import { chmodSync, mkdirSync, renameSync } from "node:fs";
import { dirname, join } from "node:path";
import { describeContent } from "../../bundle/export-directory/directory.ts";
import type { ExportPointOptions, ExportPointResult } from "../../contract/export-directory.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { CONTENT, type Envelope, ENVELOPE, encodeEnvelope } from "../../formats/envelope/envelope.ts";
import { plural } from "../../formats/sizes.ts";
import { durableWrite, fsyncDirectory, temporaryName } from "../../fs/durable.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { printablePath } from "../../fs/safe-path.ts";
import { throttled } from "../../pacer.ts";
import { freeFolder, requireFree } from "../../workspace/new-folder/new-folder.ts";
import { recoverPartials } from "../../workspace/new-folder/recover-folders.ts";
import { restoreTo } from "../../workspace/new-folder/write-point.ts";
import { realPathOf } from "../../workspace/place/find-workspace.ts";
import type { Workspace } from "../../workspace/workspace.ts";
import { publicPoint } from "../public-point.ts";

/**
 * Writes a point as an export directory. Steps: its content is written below a temporary name beside the directory; every
 * file is read again for its hash; the envelope is written; all of it is on the disk; the name is the commit.
 */
export async function exportPoint(
  workspace: Workspace,
  target: string,
  to: string,
  options: ExportPointOptions,
): Promise<ExportPointResult> {
  const started = performance.now();
  const directory = freeFolder(to);
  await recoverPartials(workspace, options);
  const point = workspace.resolve(target);
  const stage = join(dirname(directory), temporaryName());
  mkdirSync(stage, { mode: 0o700 });
  try {
    const { leftOut } = await restoreTo(workspace, { ...options, point, to: join(stage, CONTENT), paths: null });
    if (leftOut.length > 0)
      throw new CairnError("incomplete", `${plural(leftOut.length, "entry")} of the point could not be written`, {
        hint: "`cairn restore POINT --to DIR` writes what can be, and lists the rest",
      });
    failpoint("export-directory.written");
    const onFile = throttled(options.onProgress);
    const content = await describeContent(stage, {
      signal: options.signal,
      onFile: (done) => onFile({ phase: "verifying", done }),
    });
    const { save_point_id, payload_root_hash: digest, created_at, message, tags, cause } = publicPoint(point);
    const { id, name } = workspace.found.workspace;
    const config = { id, name, description: message ?? "", save_point_id, created_at, tags, cause };
    const envelope: Envelope = { kind: "workspace", config, stateDigest: digest, ...content };
    durableWrite(join(stage, ENVELOPE), encodeEnvelope(envelope), { mode: 0o644 });
    failpoint("export-directory.described");
    chmodSync(stage, 0o755);
    renameSync(stage, directory);
    fsyncDirectory(dirname(directory));
    return {
      path: directory,
      save_point_id,
      state_digest: digest!,
      files: content.files.length,
      entries: content.entries.length,
      bytes: content.files.reduce((sum, { size }) => sum + size, 0),
      duration_ms: Math.round(performance.now() - started),
    };
  } catch (error) {
    removeAll(stage);
    const { code } = error as NodeJS.ErrnoException;
    // Somebody was quicker: a folder with something in it is replaced by none.
    if (code === "ENOTEMPTY" || code === "EEXIST") requireFree(realPathOf(directory));
    throw toCairnError(error, `write ${printablePath(directory)}`);
  }
}
