import type { SavePointId } from "../ids.ts";
import { ownCause } from "../contract/checked-calls.ts";
import { suspectAt } from "../fs/secret-names.ts";
import { rawPath } from "../formats/records/record.ts";
import { displayPath, listedNames, printablePath, quotedPath } from "../fs/paths/safe-path.ts";
import { plural } from "../formats/sizes.ts";
import { withoutTexts } from "../workspace/points/agent-events.ts";
import { publicLeftOut } from "../workspace/points/left-out.ts";
import { type SavedOrHead, saveWorkspace } from "../workspace/save/save.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import type { Cause, ImportOptions, SaveOptions, SavePoint, SaveResult } from "../contract/index.ts";
import { duringHooks, hookedInput } from "../keep/hooks.ts";
import { publicPoint, secretsOf } from "../look/public-point.ts";
import { checkTags } from "../formats/restic/snapshot.ts";
import { advice, CairnError, call, word } from "../errors.ts";
import { lstatSync } from "node:fs";
import { recoverWorkspace } from "../workspace/open/recovery.ts";
import { realPathOf } from "../workspace/place/find-workspace.ts";
import { capturePoint } from "../workspace/save/capture.ts";
import { isImported } from "../workspace/points/points.ts";
import { checkPointTags } from "../workspace/points/targets.ts";

/** Causes of saves that nobody asked for or scheduled: they come often, and their caller waits. */
const HOOKLESS: ReadonlySet<string> = new Set(["tool_call", "command"]);

/** Saves the folder, between its hooks. Throws `usage` for an invalid cause or tag. */
export async function save(workspace: Workspace, options: SaveOptions): Promise<SaveResult> {
  const started = performance.now();
  checkPointTags(options.tags ?? []);
  if (options.id !== undefined && options.skipUnchanged === true)
    throw new CairnError(
      "usage",
      "give id or skipUnchanged, not both: an unchanged folder gets no new point, and so no id",
    );
  const { cause: given, texts } = withoutTexts(options.cause ?? ownCause());
  const cause = checkedCause(given);
  const { hooks = !HOOKLESS.has(cause.kind) } = options;
  const input = { ...options, hooks, cause, texts };
  const saved = await duringHooks(workspace.found, "save", input, async (hooked) =>
    saveWorkspace(workspace, hookedInput(input, hooked)),
  );
  const { count, paths } = saved.notKept ?? { count: 0, paths: [] };
  if (count > 0)
    options.onWarning?.(
      `${plural(count, "entry")} no longer saved, because a rule leaves them out: ${quotedPath(paths[0]!)}${paths.length > 1 ? " and others" : ""}; they are in the save points before this one`,
    );
  const point = publicPoint(saved.point);
  const changed = Object.values(saved.changes ?? { unknown: 1 }).reduce((sum, each) => sum + each, count);
  warnOfSecrets(workspace, options, saved);
  return {
    ...point,
    // A held point was written before its tree was compared.
    unchanged: point.unchanged || (!saved.point.sealed && changed === 0),
    made: saved.made,
    changes: saved.changes,
    read_bytes: saved.readBytes,
    duration_ms: Math.round(performance.now() - started),
    left_out: saved.leftOut.map(publicLeftOut),
    not_kept: { count, paths: paths.map((path) => displayPath(path)) },
    secrets: secretsOf(saved.point),
    rows:
      options.rows === undefined
        ? []
        : await (await import("../look/check-rows.ts")).checkRowsOfSaved(workspace, saved.point, options),
    ...(saved.hooks === undefined ? {} : { hooks: saved.hooks }),
  };
}

/** Warns of files that look like credentials: new ones in the point, or ones that were left out. */
function warnOfSecrets(workspace: Workspace, { secrets, onWarning }: SaveOptions, { point, made }: SavedOrHead): void {
  const { parent_id: parent, rules } = point.descriptor;
  if (secrets === false) {
    const left = rules.ignored_sample.map((each) => rawPath(each)).filter((path) => suspectAt(path) !== null);
    if (made && left.length > 0)
      onWarning?.(`left out, because they look like credentials: ${listedNames(left.map(quotedPath))}`);
    return;
  }
  const before = workspace.byId(parent);
  const known = new Set((before === null ? [] : (secretsOf(before) ?? [])).map(({ path }) => path));
  const added = (made ? (secretsOf(point) ?? []) : []).filter(({ path }) => !known.has(path));
  if (added.length > 0)
    onWarning?.(
      `${plural(added.length, "file")} in the point ${added.length === 1 ? "looks" : "look"} like credentials: ${listedNames(added.map(({ path }) => path))}; the store is encrypted; --no-secrets leaves them out`,
    );
}

const MAX_CAUSE_BYTES = 64 * 1024;

/** Returns the cause as recorded. Throws `usage` if it has no kind, is no JSON, or has more than 64 KiB. */
function checkedCause(cause: Cause): Cause {
  const wrong = (why: string): CairnError =>
    new CairnError("usage", `not a cause: ${why}`, { hint: 'for example {"kind":"tool_call","tool":"bash"}' });
  let text: string;
  try {
    text = JSON.stringify(cause) ?? "";
  } catch (error) {
    throw new CairnError("usage", "not a cause: it is not JSON", { cause: error });
  }
  if (Buffer.byteLength(text) > MAX_CAUSE_BYTES) throw wrong(`it has more than ${MAX_CAUSE_BYTES} bytes as JSON`);
  const value = JSON.parse(text === "" ? "null" : text) as Cause | null;
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw wrong("it is not an object");
  if (typeof value.kind !== "string" || value.kind === "") throw wrong("it has no `kind`");
  return value;
}

/**
 * Makes a point of another folder's tree, which stays unchanged. Throws `unsupported` if the engine holds no trees, or
 * cannot hold this one.
 */
export async function importTree(workspace: Workspace, tree: string, options: ImportOptions): Promise<SavePoint> {
  const { createdAt, id, tags = [] } = options;
  checkTags(tags);
  if (createdAt !== undefined && !(new Date(createdAt).getTime() > 0 && createdAt.endsWith("Z")))
    throw new CairnError("usage", `createdAt must be a time in UTC, such as 2026-11-23T14:00:00Z; found ${createdAt}`);
  const from = realPathOf(tree);
  if (lstatSync(from, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new CairnError("not_found", `there is no folder ${printablePath(from)}`);
  const { holder } = workspace.engine;
  if (holder === null) throw cannotHold(workspace, "its engine makes no clones");
  using _lock = await workspace.lock("import", options);
  await recoverWorkspace(workspace, options);
  if (id !== undefined) workspace.requireChosenId(id, true);
  const cause = { kind: "import", ...options.cause, imported: true };
  const input = { ...options, cause, tags: id === undefined ? tags : [id, ...tags] };
  const head = workspace.byId(workspace.state().head);
  const parent =
    options.parent === undefined || options.parent === null
      ? options.parent
      : workspace.byId(options.parent as SavePointId);
  if (parent === null && options.parent !== null)
    throw new CairnError("not_found", `there is no point ${options.parent} to be the parent`);
  // Head moves to the newest imported point, but never from a save of the folder to an import.
  const isNewest = head === null || head.descriptor.created_at <= (createdAt ?? new Date().toISOString());
  const movesHead = (head === null || isImported(head)) && (options.isHead ?? isNewest);
  const held = await capturePoint(workspace, input, holder, { from, movesHead, parent });
  if ("what" in held) throw cannotHold(workspace, held.reason);
  return publicPoint(held.point);
}

function cannotHold({ root }: Workspace, reason: string): CairnError {
  return new CairnError("unsupported", `the workspace ${printablePath(root)} cannot import a folder: ${reason}`, {
    hint: advice`choose an engine that makes clones: ${call("engine show", "detectEngine", word("path"))} lists the engines that work there`,
  });
}
