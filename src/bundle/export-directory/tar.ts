import { CairnError, reworded, toCairnError } from "../../errors.ts";
import { CONTENT, ENVELOPE } from "../../formats/envelope/envelope.ts";
import { runTool } from "../../fs/child-pipes.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";

/** An export directory as one tar file, by GNU tar(1): PAX headers, holes in the PAX 1.0 way, attributes. The envelope comes last. */

const ALL = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"] as const;
const MISSING = "install GNU tar";
/** In the place of a file: the standard output, or the standard input, of this process. */
export const STREAM = "-";

/** Writes a whole directory into a file, which is replaced, or a stream. Throws `io`, `no_space`. */
export async function packTar(directory: string, file: string, signal: AbortSignal | undefined): Promise<void> {
  const form = ["--create", "--format=posix", "--sparse", "--sort=name", ...ALL];
  const what = [`--file=${file}`, "--force-local", `--directory=${directory}`, CONTENT, ENVELOPE];
  await runTool("tar", [...form, ...what], { signal, missing: MISSING, streams: file === STREAM });
}

/** Returns an error in unpacked files, which lie in `stage` for a while, with the name of their tar file in its message. */
export function namingTar(error: unknown, doing: string, { stage, tar }: { stage: string; tar: string }): CairnError {
  const known = toCairnError(error, doing);
  return reworded(known, { message: known.message.replaceAll(stage, tar) });
}

/**
 * Unpacks a file or stream into an empty folder; only members that an export directory can have. Throws `damaged` if the file is
 * not a complete tar of one, `no_space`.
 */
export async function unpackTar(file: string, into: string, signal: AbortSignal | undefined): Promise<void> {
  const form = ["--extract", "--preserve-permissions", "--delay-directory-restore", ...ALL];
  const what = [`--file=${file}`, "--force-local", `--directory=${into}`];
  try {
    await runTool("tar", [...form, ...what], { signal, missing: MISSING, streams: file === STREAM });
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "io") throw error;
    throw new CairnError(
      "damaged",
      `${file === STREAM ? "the stream" : printablePath(file)} is not a complete tar file of an export directory: it is truncated or damaged`,
      {
        cause: error,
      },
    );
  }
}
