/** Whose change is it, and what goes back: the rules of relative changes once more, on plain maps. Nothing of Cairn is called here. */

export interface Entry {
  type: "file" | "dir" | "link";
  /** of a file its text, of a link its target */
  content: string;
  mode: number;
}

/** The entries of a folder by path. */
export type Files = ReadonlyMap<string, Entry>;

export interface Event {
  session: string;
  agent: string;
  kind: "prompt" | "before" | "after" | "stop";
  /** null for events of the turn itself */
  call: number | null;
}

/** A save, or an event whose save failed. */
export interface Moment {
  /** null: the save failed */
  files: Files | null;
  event?: Event;
  /** a person or program asked for the save */
  isAsked?: boolean;
  /** an operation (restore, rewind, undo, redo, adoption) began here */
  isOperation?: boolean;
  /** the state was read after the hook had returned */
  isLate?: boolean;
  /** the folder differed from head */
  isMade?: boolean;
}

/** The time between two saves. */
export interface Interval {
  /** index of the moment at its beginning */
  index: number;
  found: Files;
  left: Files;
  by: { session: string } | "none" | "uncertain";
}

/** Divides the time from a moment on, to now. */
export function intervalsFrom(moments: readonly Moment[], first: number, now: Files): Interval[] {
  const calls = callsOf(moments);
  const openAfter = (index: number): string[] => [
    ...new Set(calls.filter(({ begin, end }) => begin <= index && index < end).map(({ session }) => session)),
  ];
  const intervals: Interval[] = [];
  const saved = moments.map((_each, index) => index).filter((index) => moments[index]!.files !== null);
  for (const [i, index] of saved.entries()) {
    if (index < first) continue;
    const next = saved[i + 1];
    const [found, left] = [moments[index]!.files!, next === undefined ? now : moments[next]!.files!];
    const open = openAfter(index);
    const parts = moments.slice(index, next).map((_each, more) =>
      openAfter(index + more)
        .toSorted()
        .join(),
    );
    const isMixed = new Set(parts).size > 1;
    const isLate = moments[index]!.isLate === true || (next !== undefined && moments[next]!.isLate === true);
    const isShared = moments[index]!.isOperation === true && open.length > 0;
    const isUnclear =
      open.length > 1 ||
      isMixed ||
      isLate ||
      isShared ||
      open.some((each) => isDoubted(calls, each, { moments, index }));
    const by = isUnclear ? "uncertain" : open.length === 0 ? "none" : { session: open[0]! };
    intervals.push({ index, found, left, by });
  }
  return intervals;
}

interface Call {
  session: string;
  /** index of the moment of its beginning */
  begin: number;
  /** index of the moment at which it ended */
  end: number;
  /** an event tells of its end */
  hasEnd: boolean;
}

/** Lists the calls of all sessions. In a tool that never told of a call, each turn is a call. */
function callsOf(moments: readonly Moment[]): Call[] {
  const tells = new Set(
    moments.flatMap(({ event }) => (event !== undefined && event.call !== null ? [event.agent] : [])),
  );
  return moments.flatMap(({ event }, begin) => {
    if (event === undefined) return [];
    const { session, agent, kind, call } = event;
    const isCall = kind === "before" || (kind === "prompt" && !tells.has(agent));
    if (!isCall) return [];
    const later = (fits: (event: Event) => boolean): number =>
      moments.findIndex((each, i) => i > begin && each.event?.session === session && fits(each.event));
    const end =
      kind === "before"
        ? later((each) => each.call === call && each.kind === "after")
        : later((each) => each.kind === "stop");
    const next = later(() => true);
    // A turn that is one call ends with the next event, whichever it is.
    const isEnded = end >= 0 && (kind === "before" || end === next);
    return [{ session, begin, end: isEnded ? end : next < 0 ? Infinity : next, hasEnd: isEnded }];
  });
}

/** Tells if somebody went on alone in a call that may have been interrupted: no event tells of its end. */
function isDoubted(
  calls: readonly Call[],
  session: string,
  { moments, index }: { moments: readonly Moment[]; index: number },
): boolean {
  const open = calls.filter(
    (each) => each.session === session && !each.hasEnd && each.begin <= index && index < each.end,
  );
  return open.some(({ begin }) =>
    moments.slice(begin + 1, index + 1).some(({ isAsked, isOperation }) => isAsked === true || isOperation === true),
  );
}

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
