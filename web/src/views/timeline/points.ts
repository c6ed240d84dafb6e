import { signal } from "@preact/signals";
import type { BackupSnapshot, Changes, HistoryOptions, SavePoint, Turn } from "cairnstate/client";
import { call, historyOptions } from "../../app/calls.ts";
import { problemOf } from "../../app/resource.ts";
import { turnOf } from "../../parts/cause.tsx";
import type { Found } from "../../parts/problem.tsx";

/**
 * The points of a workspace as rows, with a heading for each day and for each agent's turn, and its backups among them.
 * Pages are loaded when they come into view.
 */

const PAGE = 200;
/** Rows whose changes are counted at once. */
const COUNTED = 30;

/** Turns that are asked for at first; when the oldest comes into view, as many times more. */
const TURNS = 20;
const MORE_TURNS = 5;

interface Day {
  day: string;
  points: number;
}

/** A row between points. */
export type Heading = Day | { turn: Turn; number: number } | { backup: BackupSnapshot };
export type Row = Heading | { at: number };

/** A heading, and the index of the point below it. The row of a heading is `first` + the number of headings above. */
interface Placed {
  heading: Heading;
  first: number;
}

export interface Filter {
  all: boolean;
  text: string;
}

export class TimelinePoints {
  readonly #workspace: string;
  readonly #filter: Filter;
  readonly #options: HistoryOptions;
  readonly #stopped = new AbortController();
  readonly #pages = new Map<number, readonly SavePoint[] | "asked">();
  readonly #changes = new Map<string, Changes | null>();
  #days: readonly Day[] = [];
  #backups: readonly BackupSnapshot[] = [];
  #turns: readonly Turn[] = [];
  /** By a turn's id its number in its session. */
  #numbers: ReadonlyMap<string, number> = new Map();
  #headings: readonly Placed[] = [];
  #turnLimit = TURNS;
  /** Number of loads of turns so far; the answer to an earlier load is ignored. */
  #turnLoads = 0;
  #hasMoreTurns = false;
  /** True if a filtered list has more points than were loaded. */
  #isMore = false;
  /** Number of loads so far; the answer to an earlier load is ignored. */
  #generation = 0;
  #range: [first: number, end: number] = [0, 0];
  /** Increases with each loaded part, so that views render again. */
  readonly version = signal(0);
  readonly problem = signal<Found | null>(null);
  readonly isLoading = signal(true);
  head: string | null = null;
  /** True if some paths of the folder were restored from another point since `head`. */
  isInPart = false;
  latest: string | null = null;
  undo: SavePoint | null = null;
  rows = 0;
  total = 0;
  damaged = 0;

  constructor(workspace: string, filter: Filter) {
    this.#workspace = workspace;
    this.#filter = filter;
    this.#options = { ...historyOptions(filter.text), all: filter.all };
  }

  get isFiltered(): boolean {
    return this.#filter.text.trim() !== "";
  }

  /** Loads the newest points and the number of points per day. The present rows stay until the answer comes. */
  async load(): Promise<void> {
    this.isLoading.value = true;
    const generation = ++this.#generation;
    try {
      // The points are asked for first, and wait for nothing else.
      const points = this.#page(0, true);
      const [days] = await Promise.all([this.isFiltered ? null : this.#daysOf(), points]);
      if (generation !== this.#generation) return;
      if (days !== null) this.#setDays(days);
      // The note on failed hooks tells why turns may be missing.
      if (days !== null) void this.#loadTurns().catch(() => undefined);
      this.problem.value = null;
      this.show(...this.#range);
    } catch (error) {
      if (!this.#stopped.signal.aborted) this.problem.value = problemOf(error);
    } finally {
      this.isLoading.value = false;
      this.version.value++;
    }
  }

  /** Places the backups that fit the filter among the points. `backups`: oldest first. */
  showBackups(backups: readonly BackupSnapshot[]): void {
    this.#backups = backups.filter((each) => fitsBackup(each, this.#options)).toReversed();
    this.#place();
    this.version.value++;
  }

  /** Number of backups among the points. */
  get backups(): number {
    return this.#backups.length;
  }

  stop(): void {
    this.#stopped.abort();
  }

  async #daysOf(): Promise<Day[]> {
    const { signal } = this.#stopped;
    const members = { workspace: this.#workspace, options: { all: this.#filter.all } };
    return (await call("historyDays", members, { signal })).days;
  }

  async #loadTurns(limit = this.#turnLimit): Promise<void> {
    const load = ++this.#turnLoads;
    const members = { workspace: this.#workspace, options: { limit } };
    const { turns, sessions, more } = await call("turns", members, { signal: this.#stopped.signal });
    if (load !== this.#turnLoads) return;
    this.#turns = turns;
    const left = new Map(sessions.map(({ agent, session, turns: all }) => [`${agent} ${session}`, all]));
    this.#numbers = new Map(
      turns.map(({ turn_id: id, agent, session }) => {
        const number = left.get(`${agent} ${session}`) ?? 1;
        left.set(`${agent} ${session}`, number - 1);
        return [id, number];
      }),
    );
    this.#turnLimit = limit;
    this.#hasMoreTurns = more > 0;
    this.#place();
    this.version.value++;
  }

  async #page(page: number, isFirst = false): Promise<void> {
    if (!isFirst && this.#pages.has(page)) return;
    if (!isFirst) this.#pages.set(page, "asked");
    const members = {
      workspace: this.#workspace,
      limit: PAGE,
      options: { ...this.#options, skip: page * PAGE },
    };
    const generation = this.#generation;
    const found = await call("history", members, { signal: this.#stopped.signal });
    if (generation !== this.#generation) return;
    if (isFirst) this.#pages.clear();
    this.#pages.set(page, found.save_points);
    this.head = found.head;
    this.isInPart = found.head_in_part === true;
    this.latest = found.latest;
    this.undo = found.undo;
    this.damaged = found.damaged.length;
    // Until the server has counted the days, the list has those of the loaded points.
    if (this.isFiltered || this.#days.length === 0) this.#setDays(this.#loadedDays(), found.truncated);
    else this.#place();
    this.version.value++;
    if (!isFirst) this.show(...this.#range);
  }

  /** Returns the days of the loaded points, for a filtered list, whose days the server does not count. */
  #loadedDays(): Day[] {
    const days: Day[] = [];
    for (let page = 0; this.#pages.has(page); page++) {
      const points = this.#pages.get(page)!;
      for (const point of points === "asked" ? [] : points) {
        const day = dayOf(point.created_at);
        if (days.at(-1)?.day === day) days.at(-1)!.points++;
        else days.push({ day, points: 1 });
      }
    }
    return days;
  }

  #setDays(days: readonly Day[], isMore = false): void {
    this.#days = days;
    this.total = days.reduce((sum, { points }) => sum + points, 0);
    this.#isMore = isMore;
    this.#place();
  }

  /** Places the headings of days and of backups, and of turns whose last point is loaded. */
  #place(): void {
    const backups = Map.groupBy(this.#backups, ({ created_at: at }) => dayOf(at));
    const saved = new Set(this.#days.map(({ day }) => day));
    const only = [...backups.keys()].filter((day) => !saved.has(day));
    const days = [...this.#days, ...only.map((day) => ({ day, points: 0 }))];
    if (only.length > 0) days.sort((a, b) => (a.day < b.day ? 1 : -1));
    const turns = this.#placedTurns();
    const headings: Placed[] = [];
    let [first, turn] = [0, 0];
    for (const heading of days) {
      const end = first + heading.points;
      const within: Placed[] = this.#placedBackups(backups.get(heading.day) ?? [], first, end);
      while (turn < turns.length && turns[turn]!.first < end) within.push(turns[turn++]!);
      // The sort is stable: a backup stands above a turn.
      headings.push({ heading, first }, ...within.toSorted((a, b) => a.first - b.first));
      first = end;
    }
    this.#headings = headings;
    // One additional row loads the next page when it comes into view.
    this.rows = this.total + headings.length + (this.#isMore ? 1 : 0);
  }

  #placedTurns(): Placed[] {
    const wanted = Map.groupBy(this.#turns, ({ after }) => after);
    const placed: Placed[] = [];
    for (const [page, points] of this.#pages)
      for (const [at, { save_point_id: id }] of points === "asked" ? [] : points.entries()) {
        for (const turn of wanted.get(id) ?? [])
          placed.push({
            heading: { turn, number: this.#numbers.get(turn.turn_id)! },
            first: page * PAGE + at,
          });
      }
    return placed.toSorted((a, b) => a.first - b.first);
  }

  /** Places backups of a day, newest first, among its points from `first` to `end`, as far as these are loaded. */
  #placedBackups(backups: readonly BackupSnapshot[], first: number, end: number): Placed[] {
    let at = first;
    return backups.map((backup) => {
      const time = Date.parse(backup.created_at);
      while (at < end && Date.parse(this.point(at)?.created_at ?? "") > time) at++;
      return { heading: { backup }, first: at };
    });
  }

  row(index: number): Row {
    const above = this.#above(({ first }, number) => first + number <= index);
    const heading = this.#headings[above - 1];
    if (heading !== undefined && heading.first + above - 1 === index) return heading.heading;
    return { at: index - above };
  }

  /** Counts the first headings that have a property; later ones lack it. */
  #above(has: (placed: Placed, number: number) => boolean): number {
    let [low, high] = [0, this.#headings.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (has(this.#headings[middle]!, middle)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Key of a row, so its element stays when newer rows are added above. */
  keyOf(index: number): string | number {
    const row = this.row(index);
    if ("day" in row) return row.day;
    if ("backup" in row) return `backup ${row.backup.snapshot_id}`;
    return "turn" in row ? `turn ${row.turn.turn_id}` : (this.point(row.at)?.save_point_id ?? index);
  }

  /** Returns the row of a point; `at` counts points from the newest. */
  rowOf(at: number): number {
    return at + this.#above(({ first }) => first <= at);
  }

  /** Returns the row of a backup, and the index of the point below; null if the list does not show the backup. */
  placeOf(snapshot: string): { row: number; below: number } | null {
    const at = this.#headings.findIndex(
      ({ heading }) => "backup" in heading && heading.backup.snapshot_id === snapshot,
    );
    return at < 0 ? null : { row: this.#headings[at]!.first + at, below: this.#headings[at]!.first };
  }

  /** Undefined if the point is not loaded yet. */
  point(at: number): SavePoint | undefined {
    const page = this.#pages.get(Math.floor(at / PAGE));
    return page === undefined || page === "asked" ? undefined : page[at % PAGE];
  }

  /** Index of a point, 0 for the newest; -1 if it is not loaded. */
  indexOf(id: string): number {
    for (const [page, points] of this.#pages) {
      const at = points === "asked" ? -1 : points.findIndex((each) => each.save_point_id === id);
      if (at >= 0) return page * PAGE + at;
    }
    return -1;
  }

  /** Returns the tags and the agents of the loaded points. */
  labels(): { tags: string[]; agents: string[] } {
    const [tags, agents] = [new Set<string>(), new Set<string>()];
    for (const points of this.#pages.values())
      for (const point of points === "asked" ? [] : points) {
        for (const tag of point.tags) tags.add(tag);
        const turn = turnOf(point);
        if (turn !== null) agents.add(turn.agent);
      }
    return { tags: [...tags].toSorted(), agents: [...agents].toSorted() };
  }

  changes(id: string): Changes | null | undefined {
    return this.#changes.get(id);
  }

  /** Loads the missing points and changes of the rows in view. */
  show(firstRow: number, endRow: number): void {
    this.#range = [firstRow, endRow];
    const wanted: number[] = [];
    for (let index = firstRow; index < endRow; index++) {
      const row = this.row(index);
      if ("at" in row) wanted.push(row.at);
    }
    const pages = new Set(wanted.map((at) => Math.floor(at / PAGE)));
    for (const page of pages) if (!this.#pages.has(page)) void this.#page(page).catch(() => this.#pages.delete(page));
    const oldestTurn = this.#headings.findLast(({ heading }) => "turn" in heading);
    if (this.#hasMoreTurns && oldestTurn !== undefined && (wanted.at(-1) ?? 0) >= oldestTurn.first) {
      this.#hasMoreTurns = false;
      void this.#loadTurns(this.#turnLimit * MORE_TURNS).catch(() => (this.#hasMoreTurns = true));
    }
    const lacking = wanted.filter((at) => {
      const id = this.point(at)?.save_point_id;
      return id !== undefined && !this.#changes.has(id);
    });
    if (lacking.length > 0) void this.#count(lacking[0]!, Math.min(COUNTED, lacking.at(-1)! - lacking[0]! + 1));
  }

  async #count(skip: number, limit: number): Promise<void> {
    const ids = Array.from({ length: limit }, (_, i) => this.point(skip + i)?.save_point_id);
    for (const id of ids) if (id !== undefined) this.#changes.set(id, null);
    const options = { ...this.#options, skip, changes: true };
    const members = { workspace: this.#workspace, limit, options };
    try {
      const found = await call("history", members, { signal: this.#stopped.signal });
      for (const [i, point] of found.save_points.entries())
        this.#changes.set(point.save_point_id, found.changes?.[i] ?? null);
      this.version.value++;
    } catch {
      // Rows without counts are still shown; their counts are requested again when they come back into view.
      for (const id of ids) if (id !== undefined) this.#changes.delete(id);
    }
  }
}

/** True if a filter's text is in the words of a backup's row. No backup fits a filter by time, path or cause. */
function fitsBackup(
  { snapshot_id: id, hostname, tags }: BackupSnapshot,
  { grep = "", tag, path, since, until }: HistoryOptions,
): boolean {
  if ((path ?? since ?? until) !== undefined || (tag !== undefined && !tags.includes(tag))) return false;
  return `backup ${id} ${hostname} ${tags.join(" ")}`.toLowerCase().includes(grep.toLowerCase());
}

/** Returns the local day of a time, for example `2026-11-26`. */
export function dayOf(at: string): string {
  const date = new Date(at);
  const two = (value: number): string => String(value).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}
