import type { BackupSnapshot, Changes, SavePoint } from "cairnstate/client";
import type { JSX } from "preact";
import { href } from "../../app/address.ts";
import { go, route } from "../../app/route.ts";
import { CauseName, isOfUndo, type Turn, turnOf } from "../../parts/cause.tsx";
import { Icon } from "../../parts/icon.tsx";
import { Name, Words } from "../../parts/name.tsx";
import { count, plural, size } from "../../parts/numbers.ts";
import { Counts, dayName, timeOfDay, When } from "../../parts/values.tsx";
import type { Fork } from "../../app/forks.ts";
import { MarkButton, markOf } from "./mark.tsx";

/** Height of every row in pixels, as in timeline.css. */
export const ROW = 58;

export function DayRow({ day, points }: { day: string; points: number }): JSX.Element {
  return (
    <div role="listitem">
      <h2 class="day">
        {dayName(`${day}T12:00:00`)} {points > 0 && <span class="faint">{plural(points, "save point")}</span>}
      </h2>
    </div>
  );
}

/** The row of a backup in the kept repository. */
export function BackupRow({ workspace, backup }: { workspace: string; backup: BackupSnapshot }): JSX.Element {
  const { snapshot_id: id, created_at: at, hostname, tags, files, bytes } = backup;
  const opened = route.value;
  const isActive = opened.view === "point" && opened.point === `backup:${id}`;
  return (
    <div class="point-row backup-row" role="listitem" data-active={isActive}>
      <span class="rail" aria-hidden="true" />
      <a
        class="point-main"
        href={href({ view: "point", workspace, point: `backup:${id}` })}
        tabIndex={-1}
        {...(isActive ? { "aria-current": "true" as const } : {})}
      >
        <span class="point-message">
          <Icon name="archive" /> Backup
          {tags.slice(0, 3).map((tag) => (
            <span key={tag} class="badge tag">
              <Name text={tag} />
            </span>
          ))}
        </span>
        <span class="point-facts faint">
          <When at={at} as={timeOfDay} />
          <code>{id.slice(0, 8)}</code>
          <span>
            from <Name text={hostname} />
          </span>
        </span>
      </a>
      <span class="point-sums">
        {files !== null && <span class="faint">{plural(files, "file")}</span>}
        <span class="faint">{bytes === null ? "" : size(bytes)}</span>
      </span>
      <MarkButton of={markOf(workspace, backup)} />
    </div>
  );
}

export interface PointRowProps {
  workspace: string;
  point: SavePoint;
  /** The neighbouring points. */
  newer: SavePoint | undefined;
  older: SavePoint | undefined;
  changes: Changes | null | undefined;
  isHead: boolean;
  /** True if a part of the folder was restored to another state since its head. */
  isInPart: boolean;
  isActive: boolean;
  lanes: readonly (Fork & { isStart: boolean; isDrawn: boolean })[];
  onPick(): void;
}

/** The row of a point: message, cause, changes and labels. */
export function PointRow(props: PointRowProps): JSX.Element {
  const { workspace, point, newer, older, changes, isHead, isInPart, isActive, lanes, onPick } = props;
  const turn = turnOf(point);
  const isUndo = isOfUndo(point.cause);
  const branched = point.restored_from !== null;
  return (
    <div class="point-row" role="listitem" data-undo={isUndo} data-active={isActive}>
      <Rail turn={turn} newer={newer} older={older} isHead={isHead} isUndo={isUndo} />
      <a
        class="point-main"
        href={href({ view: "point", workspace, point: point.save_point_id })}
        onClick={onPick}
        tabIndex={-1}
        {...(isActive ? { "aria-current": "true" as const } : {})}
      >
        <span class="point-message">
          {point.message === "" ? <span class="faint">no message</span> : <Words text={point.message} />}
          {isHead && <span class="badge good">{isInPart ? "here, changed" : "here"}</span>}
          {point.pinned && <Icon name="pin" label="pinned" />}
          {point.integrity_state === "damaged" && <span class="badge bad">damaged</span>}
          {!point.complete && <span class="badge warn">incomplete</span>}
          {point.tags.slice(0, 3).map((tag) => (
            <span key={tag} class="badge tag">
              <Name text={tag} />
            </span>
          ))}
          {point.tags.length > 3 && <span class="badge">+{count(point.tags.length - 3)}</span>}
        </span>
        <span class="point-facts faint">
          <When at={point.created_at} as={timeOfDay} />
          <CauseName cause={point.cause} />
          {turn !== null && turn.turn !== null && !sameTurn(turn, older) && (
            <span class="point-turn">
              turn <Name text={turn.turn} />
            </span>
          )}
          {turn?.session !== null && turn !== null && !sameSession(turn, newer) && (
            <span class="point-session">
              session <Name text={turn.session} />
            </span>
          )}
          {branched && (
            <span class="point-branch">
              <Icon name="restore" /> based on an older point
            </span>
          )}
        </span>
      </a>
      <span class="point-sums">
        {changes !== undefined && changes !== null && <Counts {...changes} />}
        <span class="faint">{point.bytes === null ? "" : size(point.bytes)}</span>
      </span>
      <Lanes lanes={lanes} />
      <MarkButton of={markOf(workspace, point)} />
    </div>
  );
}

function sameSession(turn: Turn, other: SavePoint | undefined): boolean {
  const theirs = other === undefined ? null : turnOf(other);
  return theirs !== null && theirs.session === turn.session && theirs.agent === turn.agent;
}

function sameTurn(turn: Turn, other: SavePoint | undefined): boolean {
  return sameSession(turn, other) && turnOf(other!)!.turn === turn.turn;
}

/** The line at the left of the points; it is continuous through the points of one agent's session. */
function Rail({
  turn,
  newer,
  older,
  isHead,
  isUndo,
}: {
  turn: Turn | null;
  newer: SavePoint | undefined;
  older: SavePoint | undefined;
  isHead: boolean;
  isUndo: boolean;
}): JSX.Element {
  return (
    <span
      class="rail"
      aria-hidden="true"
      data-agent={turn !== null}
      data-up={turn !== null && sameSession(turn, newer)}
      data-down={turn !== null && sameSession(turn, older)}
      data-head={isHead}
      data-undo={isUndo}
    />
  );
}

function Lanes({ lanes }: { lanes: PointRowProps["lanes"] }): JSX.Element | null {
  if (lanes.length === 0) return null;
  const started = lanes.filter(({ isStart }) => isStart);
  return (
    <span class="lanes">
      {started.map(({ path, name }) => (
        <button
          key={path}
          type="button"
          class="badge lane-name"
          aria-label={`fork ${name}: open its timeline`}
          title={`fork ${name}: open its timeline`}
          onClick={() => go({ view: "timeline", workspace: path })}
        >
          <Icon name="fork" /> <Name text={name} title={false} />
        </button>
      ))}
      <span class="lane-lines" aria-hidden="true">
        {lanes.map(({ path, isStart, isDrawn }, i) => (
          <span key={path} class="lane" data-lane={i} data-start={isStart} data-drawn={isDrawn} />
        ))}
      </span>
    </span>
  );
}
