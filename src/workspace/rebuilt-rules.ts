import type { TreeSource } from "../engines/engine.ts";
import { rulesOfTask } from "../engines/scan/directory-rules.ts";
import { toCairnError } from "../errors.ts";
import { joinPath } from "../formats/bytes.ts";
import type { IgnoreRules } from "../formats/descriptor.ts";
import { type FoundIgnoreFile, IGNORE_FILE, MAX_IGNORE_FILE_BYTES } from "../fs/ignore.ts";
import { newPacer } from "../pacer.ts";

/**
 * The rules of a point whose record of them is lost, by the ignore files in its tree: a restore would take away what they
 * left out. Nothing tells what was excluded beside them, nor what a file said that cannot be read.
 */
export async function rebuiltRules(
  source: TreeSource,
  { crossMounts, signal }: { crossMounts: boolean; signal?: AbortSignal | undefined },
): Promise<IgnoreRules> {
  return rulesByFiles(await ignoreFilesIn(source, signal), { excludes: [], crossMounts });
}

/** The rules of a point of which only ignore files and patterns are known: nobody has counted what they left out. */
export function rulesByFiles(
  files: readonly FoundIgnoreFile[],
  { excludes, crossMounts }: { excludes: readonly string[]; crossMounts: boolean },
): IgnoreRules {
  const rules = rulesOfTask({ excludes, rules: null }).record(files);
  return {
    ignore_file: true,
    exclude: rules.excludes,
    files: rules.files,
    ignored_count: 0,
    ignored_sample: [],
    ...(crossMounts ? { cross_mounts: true } : {}),
  };
}

async function ignoreFilesIn(source: TreeSource, signal: AbortSignal | undefined): Promise<FoundIgnoreFile[]> {
  const pace = newPacer(signal);
  const found: FoundIgnoreFile[] = [];
  const open: { id: Uint8Array; path: Uint8Array }[] = [{ id: source.root, path: new Uint8Array(0) }];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    await pace();
    for (const node of source.list(at.id)) {
      if (node.subtree !== undefined)
        open.push({ id: Uint8Array.from(node.subtree), path: Uint8Array.from(joinPath(at.path, node.name)) });
      else if (node.type === "file" && isIgnoreFile(node.name) && node.size <= MAX_IGNORE_FILE_BYTES) {
        const text = textOf(source, node);
        if (text !== null) found.push({ directory: Buffer.from(at.path).toString("latin1"), text });
      }
    }
  }
  return found;
}

function isIgnoreFile(name: Uint8Array): boolean {
  return Buffer.from(name).toString("latin1") === IGNORE_FILE;
}

/** In latin1; null where it cannot be read. */
function textOf(source: TreeSource, node: Parameters<TreeSource["content"]>[0]): string | null {
  try {
    return Array.from(source.content(node), (part) => Buffer.from(part).toString("latin1")).join("");
  } catch (error) {
    if (toCairnError(error).code !== "damaged") throw error;
    return null;
  }
}
