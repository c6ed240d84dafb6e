import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** Numbers of lines, from 1, that a test ran, by the source file's path from the repository's root. */
export type Reached = ReadonlyMap<string, ReadonlySet<number>>;

interface Script {
  url: string;
  functions: { ranges: { startOffset: number; endOffset: number; count: number }[] }[];
}

/** Calls `run` with the environment in which Node records what it runs, and returns the lines that all its processes ran. */
export async function whileRecording(
  root: string,
  run: (env: Record<string, string>) => Promise<void>,
): Promise<Reached> {
  const folder = mkdtempSync(path.join(tmpdir(), "cairn-reach-"));
  try {
    await run({ NODE_V8_COVERAGE: folder });
    const reached = new Map<string, Set<number>>();
    for (const name of readdirSync(folder))
      for (const script of scriptsOf(readFileSync(path.join(folder, name), "utf8"))) addLines(root, script, reached);
    return reached;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Returns the scripts of one process; none if the process was killed while it wrote them. */
function scriptsOf(text: string): Script[] {
  try {
    return (JSON.parse(text) as { result: Script[] }).result;
  } catch {
    return [];
  }
}

function addLines(root: string, { url, functions }: Script, reached: Map<string, Set<number>>): void {
  if (!url.startsWith("file://")) return;
  const file = path.relative(root, fileURLToPath(url));
  if (!/^(?:src|web\/src)\//.test(file)) return;
  const lines = reached.get(file) ?? new Set();
  reached.set(file, lines);
  const text = readFileSync(path.join(root, file), "utf8");
  const ran = new Uint8Array(text.length);
  const ranges = functions.flatMap((each) => each.ranges);
  // An inner range counts more exactly than the one around it.
  for (const { startOffset, endOffset, count } of ranges.toSorted(
    (a, b) => a.startOffset - b.startOffset || b.endOffset - a.endOffset,
  ))
    ran.fill(count > 0 ? 1 : 0, startOffset, endOffset);
  let at = 0;
  for (const [number, line] of text.split("\n").entries()) {
    if (ran.subarray(at + line.search(/\S|$/), at + line.length).includes(1)) lines.add(number + 1);
    at += line.length + 1;
  }
}

/** Returns the lines that a patch removes or replaces, by file; for added lines the line before them. */
export function changedLines(patch: string): Map<string, number[]> {
  const changed = new Map<string, number[]>();
  let lines: number[] = [];
  let at = 0;
  for (const line of patch.split("\n")) {
    const file = /^--- a\/(\S+)/.exec(line)?.[1];
    const hunk = /^@@ -(\d+)/.exec(line)?.[1];
    if (file !== undefined) changed.set(file, (lines = []));
    else if (hunk !== undefined) at = Number(hunk);
    else if (line.startsWith("+") && !line.startsWith("+++")) lines.push(at - 1);
    else if (line.startsWith("-")) lines.push(at++);
    else at++;
  }
  return changed;
}

/** Tells if a test ran one of the lines that `patch` changes. */
export function reaches(reached: Reached, patch: string): boolean {
  return [...changedLines(patch)].some(([file, lines]) => lines.some((line) => reached.get(file)?.has(line) === true));
}
