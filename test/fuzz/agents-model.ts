/** Whose change is it, and what goes back: the rules of relative changes once more, on plain maps. Nothing of Cairn is called here. */

export interface Entry {
  type: "file" | "dir" | "link";
  /** of a file its text, of a link its target */
  content: string;
  mode: number;
  /** milliseconds: the change time */
  at: number;
}

/** The entries of a folder by path. */
export type Files = ReadonlyMap<string, Entry>;

/** The time of a tool call, or of a turn of a tool that tells of no calls. */
export interface Span {
  session: string;
  /** index of the moment at which it began */
  moment: number;
  /** milliseconds */
  from: number;
  to: number;
  /** an event told of its own end */
  isSure: boolean;
}

/** The entries of git among them: here a file's content is its size and time. Without the folder itself. */
export interface Whole {
  files: Files;
  inGit: Files;
  /** change time of the folder itself */
  rootAt: number;
}

/** The time between two saves. */
export interface Interval {
  found: Whole;
  left: Whole;
  /** milliseconds: when the hook at the beginning had returned, and when the state at the end had been read */
  since: number;
  until: number;
  /** an operation (restore, rewind, undo, redo, adoption) changed the folder at the beginning */
  isOperation: boolean;
}

/** Whose a change is: of the calls in `of`, for certain or perhaps; nobody's if the list is empty. */
export interface Owner {
  of: readonly Span[];
  isSure: boolean;
}

/** Tells whose each entry is that changed between two saves, by the time of its change. */
export function ownersIn(interval: Interval, spans: readonly Span[]): Map<string, Owner> {
  const { found, left, since, until, isOperation } = interval;
  const between = (from: number, to: number): Owner => {
    const of = spans.filter((span) => span.from <= to && from <= span.to);
    const sure = of.filter((span) => span.isSure && span.from <= from && to <= span.to);
    const isSure = sure.length > 0 && of.every(({ session }) => session === of[0]!.session);
    return { of: isSure ? [sure.reduce((a, b) => (a.moment > b.moment ? a : b))] : of, isSure };
  };
  const [had, has] = [found, left].map(({ files, inGit }) => new Map([...files, ...inGit]));
  const changed = changedPaths(had!, has!);
  const written = new Set([...changed].filter((path) => has!.has(path)).map(folderOf));
  const ownerOf = (path: string): Owner => {
    const entry = has!.get(path);
    if (entry !== undefined) return between(entry.at, entry.at);
    let folder = folderOf(path);
    while (folder !== "" && !has!.has(folder)) folder = folderOf(folder);
    const last = Math.min(folder === "" ? left.rootAt : has!.get(folder)!.at, until);
    const bound = between(since, Math.max(since, last));
    return bound.of.length > 0 && !bound.isSure && !written.has(folder) && last < until ? between(last, last) : bound;
  };
  const owners = new Map<string, Owner>();
  for (const path of changed) {
    const { of, isSure } = ownerOf(path);
    owners.set(path, { of, isSure: isSure && !isOperation });
  }
  const ofGit = [...owners].filter(([path]) => isOfGit(path));
  const of = ofGit.flatMap(([, owner]) => owner.of);
  const isOne = of.length === 0 || ofGit.every(([, each]) => each.isSure && each.of[0]!.session === of[0]!.session);
  if (!isOne) for (const [path] of ofGit) owners.set(path, { of, isSure: false });
  return owners;
}

export const isOfGit = (path: string): boolean => path === ".git" || path.startsWith(".git/");
const folderOf = (path: string): string => path.slice(0, Math.max(path.lastIndexOf("/"), 0));

/** A change of the folder that goes back. */
export interface Change {
  found: Files;
  left: Files;
  isUncertain?: boolean;
  /** only these entries; absent: all */
  only?: ReadonlySet<string>;
}

export interface Back {
  files: Map<string, Entry>;
  /** entries of certain changes that stay */
  stays: Set<string>;
  /** entries that may be named too: those of uncertain changes, and directories in which something stays */
  mayStay: Set<string>;
}

/** Takes changes back, newest first: what is as a change left it becomes as the change found it. `over`: also what is not. */
export function takenBack(
  now: Files,
  changes: readonly Change[],
  {
    over = false,
    paths,
    merges = false,
  }: { over?: boolean; paths?: readonly string[] | undefined; merges?: boolean } = {},
): Back {
  const back: Back = { files: new Map(now), stays: new Set(), mayStay: new Set() };
  const oldest = new Map<string, Files>();
  for (const path of new Set(changes.flatMap(({ found, left }) => [...found.keys(), ...left.keys()]))) {
    if (paths !== undefined && !paths.some((each) => path === each || path.startsWith(`${each}/`))) continue;
    const steps = changes.filter(
      ({ found, left, only }) => !isSame(found.get(path), left.get(path)) && only?.has(path) !== false,
    );
    if (steps.length === 0) continue;
    oldest.set(path, steps.at(-1)!.found);
    const value = new EntryBack(now.get(path));
    for (const { found, left, isUncertain = false } of steps) {
      if (over) value.now = found.get(path);
      else if (isUncertain) value.stop(found.get(path));
      else value.take(found.get(path), left.get(path));
    }
    if (merges) value.merge(steps[0]!.found.get(path), steps[0]!.left.get(path));
    put(back.files, path, value.now);
    const isBack = isSame(value.now, steps.at(-1)!.found.get(path));
    const isUncertain = steps.some((each) => each.isUncertain === true);
    if (value.stays) (isUncertain || isBack ? back.mayStay : back.stays).add(path);
  }
  putDirectories(back, now, oldest);
  return back;
}

class EntryBack {
  now: Entry | undefined;
  #isContentKept = false;
  #isModeKept = false;

  constructor(now: Entry | undefined) {
    this.now = now;
  }

  get stays(): boolean {
    return this.#isContentKept || this.#isModeKept;
  }

  stop(found: Entry | undefined): void {
    if (!isSameContent(this.now, found)) this.#isContentKept = true;
    if (this.now !== undefined && found !== undefined && this.now.mode !== found.mode) this.#isModeKept = true;
  }

  take(found: Entry | undefined, left: Entry | undefined): void {
    const { now } = this;
    if (
      now !== undefined &&
      found !== undefined &&
      left !== undefined &&
      now.type === found.type &&
      now.type === left.type
    ) {
      if (found.content !== left.content && now.content !== found.content && !this.#isContentKept) {
        if (now.content === left.content) this.now = { ...this.now!, content: found.content };
        else this.#isContentKept = true;
      }
      if (found.mode !== left.mode && now.mode !== found.mode && !this.#isModeKept) {
        if (now.mode === left.mode) this.now = { ...this.now!, mode: found.mode };
        else this.#isModeKept = true;
      }
      return;
    }
    if (this.#isContentKept || isSameContent(now, found)) return;
    if (!isSameContent(now, left)) this.#isContentKept = true;
    // The entry would take a mode along that somebody else set.
    else if (now !== undefined && (this.#isModeKept || now.mode !== left!.mode)) this.#isModeKept = true;
    else this.now = found;
  }

  /** Merges the slots of a text that both sides changed. */
  merge(found: Entry | undefined, left: Entry | undefined): void {
    const { now } = this;
    if (!this.#isContentKept || now?.type !== "file" || found?.type !== "file" || left?.type !== "file") return;
    const [ours, theirs, base] = [now, found, left].map(({ content }) => slotsOf(content));
    const merged = ours!.map((own, i) => (own === base![i] ? theirs![i]! : own));
    const isConflict = ours!.some((own, i) => own !== base![i] && theirs![i] !== base![i] && own !== theirs![i]);
    if (isConflict) return;
    this.now = { ...now, content: textOf(merged) };
    this.#isContentKept = false;
  }
}

const GAP = "\n-\n-\n-\n-\n-\n";

/** Files are texts of two parts that are so far apart that edits of both merge. */
export function textOf(slots: readonly string[]): string {
  return `${slots.join(GAP)}\n`;
}

export function slotsOf(content: string): string[] {
  return content.slice(0, -1).split(GAP);
}

/** A directory stays as long as something is in it, and comes back for an entry that comes back. */
function putDirectories(back: Back, now: Files, oldest: ReadonlyMap<string, Files>): void {
  for (const path of [...back.files.keys()].toSorted())
    for (let end = path.indexOf("/"); end > 0; end = path.indexOf("/", end + 1)) {
      const above = path.slice(0, end);
      if (back.files.has(above)) continue;
      const kept = now.get(above) ?? oldest.get(path)?.get(above);
      if (kept === undefined) throw new Error(`no directory for ${path}`);
      back.files.set(above, kept);
      back.mayStay.add(above);
    }
}

function put(files: Map<string, Entry>, path: string, value: Entry | undefined): void {
  if (value === undefined) files.delete(path);
  else files.set(path, value);
}

/** Makes the folder, or some paths of it, equal to a state. */
export function restored(now: Files, target: Files, paths?: readonly string[]): Map<string, Entry> {
  if (paths === undefined) return new Map(target);
  const files = new Map(now);
  for (const path of new Set([...now.keys(), ...target.keys()]))
    if (paths.some((each) => path === each || path.startsWith(`${each}/`))) put(files, path, target.get(path));
  for (const path of [...files.keys()].toSorted())
    for (let end = path.indexOf("/"); end > 0; end = path.indexOf("/", end + 1)) {
      const above = path.slice(0, end);
      if (!files.has(above)) files.set(above, target.get(above)!);
    }
  return files;
}

export function isSame(a: Entry | undefined, b: Entry | undefined): boolean {
  return isSameContent(a, b) && a?.mode === b?.mode;
}

function isSameContent(a: Entry | undefined, b: Entry | undefined): boolean {
  return a?.type === b?.type && a?.content === b?.content;
}

export function changedPaths(before: Files, after: Files): Set<string> {
  return new Set([...before.keys(), ...after.keys()].filter((path) => !isSame(before.get(path), after.get(path))));
}

/** What differs, one line each. */
export function differencesOf(is: Files, wanted: Files): string[] {
  const shown = (entry: Entry | undefined): string =>
    entry === undefined ? "nothing" : `${entry.type} ${entry.mode.toString(8)} ${JSON.stringify(entry.content)}`;
  return [...changedPaths(is, wanted)]
    .toSorted()
    .map((path) => `${path}: is ${shown(is.get(path))}, wanted ${shown(wanted.get(path))}`);
}
