import { useSignal } from "@preact/signals";
import type { BackupSnapshot, SavePoint } from "cairnstate/client";
import type { JSX } from "preact";
import { call } from "../../app/calls.ts";
import { useActions } from "../../app/keys.ts";
import { act, isBusy } from "../../app/outcome.tsx";
import { href, shortState } from "../../app/address.ts";
import { go, route as current } from "../../app/route.ts";
import { isReadOnly } from "../../app/session.ts";
import { causeText } from "../../parts/cause.tsx";
import { Icon } from "../../parts/icon.tsx";
import { Name, PathName, Words } from "../../parts/name.tsx";
import { count, plural, size } from "../../parts/numbers.ts";
import { When, wholeTime } from "../../parts/values.tsx";
import { CompareBar } from "./compare-bar.tsx";
import { ForkDialog } from "./fork-dialog.tsx";
import { TagDialog } from "./tag-dialog.tsx";

/** Opens the comparison with another state; undefined: with the point before, or for a backup with the folder now. */
export type Compare = (to: string | undefined) => void;

export interface PointHeadProps {
  workspace: string;
  point: SavePoint;
  /** The other state of the comparison, as in the address. */
  to: string | undefined;
  /** False while another point is loading, and beside the timeline; then the keys do nothing. */
  isShown: boolean;
  compare: Compare;
  /** Called after the point's pin or tags were changed. */
  changed(): void;
}

/** The head of the folder as it is now, compared with a point. */
export function NowHead({
  workspace,
  point,
  compare,
}: {
  workspace: string;
  point: SavePoint;
  compare: Compare;
}): JSX.Element {
  const { save_point_id: id, message, created_at: at } = point;
  return (
    <header class="point-head">
      <div class="point-title">
        <div class="point-words">
          <h1>
            <span class="faint">Now, since </span>
            {message === "" ? <When at={at} as={wholeTime} /> : <Words text={message} />}
          </h1>
        </div>
        <div class="point-actions">
          <a class="button" href={href({ view: "point", workspace, point: id })}>
            <Icon name="history" /> Its save point
          </a>
        </div>
      </div>
      <p class="facts faint">
        <span>
          What changed in the folder since the save point of <When at={at} as={wholeTime} />
        </span>
        <code title={id}>{id.slice(0, 8)}</code>
      </p>
      <CompareBar workspace={workspace} point={point} to="now" compare={compare} />
    </header>
  );
}

/** The head of a backup's view. */
export function BackupHead({
  workspace,
  backup,
  to,
  compare,
}: {
  workspace: string;
  backup: BackupSnapshot;
  to: string | undefined;
  compare: Compare;
}): JSX.Element {
  const { snapshot_id: id, created_at: at, hostname, username, tags, files, bytes } = backup;
  const point = `backup:${id}`;
  const isNow = to === undefined || to === "now";
  return (
    <header class="point-head">
      <div class="point-title">
        <div class="point-words">
          <h1>
            Backup of <When at={at} as={wholeTime} />
            <span class="faint">
              {isNow ? ", and what changed in the folder since" : ", and how it differs from the other state"}
            </span>
          </h1>
        </div>
        <div class="point-actions">
          <a class="button" href={href({ view: "files", workspace, point, at: { path: "" } })}>
            <Icon name="folder" /> Files
          </a>
          {!isReadOnly() && (
            <a class="button strong" href={href({ view: "restore", workspace, point, paths: [] })}>
              <Icon name="restore" /> Restore…
            </a>
          )}
        </div>
      </div>
      <p class="facts faint">
        <code title={id}>{shortState(point)}</code>
        <span>
          by <Name text={username} /> on <Name text={hostname} />
        </span>
        {files !== null && <span>{plural(files, "file")}</span>}
        {bytes !== null && <span>{size(bytes)}</span>}
        {tags.map((tag) => (
          <span key={tag} class="badge tag">
            <Name text={tag} />
          </span>
        ))}
      </p>
      <CompareBar workspace={workspace} point={null} to={to} compare={compare} />
    </header>
  );
}

/** The head of a point's view: its message, facts and actions. */
export function PointHead(props: PointHeadProps): JSX.Element {
  const { workspace, point, to, compare, changed } = props;
  const { save_point_id: id, message } = point;
  const dialog = useSignal<Dialog | null>(null);
  const marks = usePointActions(props, (which) => (dialog.value = which));
  return (
    <header class="point-head">
      <div class="point-title">
        <div
          class="point-words"
          {...(isLong(message) ? { tabIndex: 0, role: "region" as const, "aria-label": "Message" } : {})}
        >
          <h1>{message === "" ? <span class="faint">no message</span> : <Words text={message} isWhole />}</h1>
        </div>
        <div class="point-actions">
          <a class="button" href={href({ view: "files", workspace, point: id, at: { path: "" } })}>
            <Icon name="folder" /> Files
          </a>
          {!isReadOnly() && (
            <>
              <button type="button" class="strong" onClick={marks.restore}>
                <Icon name="restore" /> Restore…
              </button>
              <button type="button" onClick={() => (dialog.value = "fork")}>
                <Icon name="fork" /> Fork…
              </button>
              <button type="button" aria-pressed={point.pinned} disabled={isBusy.value} onClick={marks.pin}>
                <Icon name="pin" /> {point.pinned ? "Pinned" : "Pin"}
              </button>
              <button type="button" onClick={() => (dialog.value = "tags")}>
                <Icon name="tag" /> Tags
              </button>
            </>
          )}
        </div>
      </div>
      <Facts point={point} />
      <Notes labels={point.labels} />
      <CompareBar workspace={workspace} point={point} to={to} compare={compare} />
      {dialog.value === "fork" && (
        <ForkDialog workspace={workspace} point={point} close={() => (dialog.value = null)} />
      )}
      {dialog.value === "tags" && (
        <TagDialog
          workspace={workspace}
          point={point}
          close={() => {
            dialog.value = null;
            changed();
          }}
        />
      )}
    </header>
  );
}

/** True if `message` may be too long for the head, which then scrolls the message. */
function isLong(message: string): boolean {
  return message.length > 60 || message.split("\n").length > 5;
}

/** The point's time, cause, id and tags. */
function Facts({ point }: { point: SavePoint }): JSX.Element {
  const { save_point_id: id, created_at, tags } = point;
  return (
    <p class="facts faint">
      <When at={created_at} as={wholeTime} />
      <Name text={causeText(point.cause)} />
      <code title={id}>{id.slice(0, 8)}</code>
      {point.entries !== null && <span>{plural(point.entries, "entry", "entries")}</span>}
      {point.bytes !== null && <span>{size(point.bytes)}</span>}
      <span>{size(point.bytes_stored)} new in the store</span>
      {point.integrity_state !== "unverified" && (
        <span class={`badge ${point.integrity_state === "verified" ? "good" : "bad"}`}>{point.integrity_state}</span>
      )}
      {!point.complete && <span class="badge warn">incomplete</span>}
      {tags.map((tag) => (
        <span key={tag} class="badge tag">
          <Name text={tag} />
        </span>
      ))}
    </p>
  );
}

/** What the labels of a point mean that a user should know. */
const NOTES: Readonly<Record<SavePoint["labels"][number]["label"], string | null>> = {
  "transaction-consistent": null,
  "crash-consistent": "a database that was in use, as after a crash: it opens with its last finished transaction",
  "torn-possible": "it was written while it was read, and may be mixed of two states",
  "rules-not-applied": "an ignore file above 1 MiB, whose rules were not applied",
  credentials: "by its name it holds credentials",
  "owner-unknown": "its owner has no id here: a restore leaves the present owner",
};
/** Notes that are listed. */
const MOST_NOTES = 50;

/** Lists the entries about which something should be known, each with its note. */
function Notes({ labels }: { labels: SavePoint["labels"] }): JSX.Element | null {
  const found = labels.flatMap((each) => {
    const note = NOTES[each.label];
    return note === null ? [] : [{ ...each, note }];
  });
  if (found.length === 0) return null;
  return (
    <details class="point-notes faint">
      <summary>{plural(found.length, "entry", "entries")} with a note</summary>
      <ul>
        {found.slice(0, MOST_NOTES).map(({ path, note, reason }, i) => (
          <li key={i}>
            <PathName path={path} />: {note}
            {reason !== undefined && (
              <>
                {" "}
                (<Words text={reason} />)
              </>
            )}
          </li>
        ))}
        {found.length > MOST_NOTES && <li>and {count(found.length - MOST_NOTES)} more</li>}
      </ul>
    </details>
  );
}

type Dialog = "fork" | "tags";

/** Offers the point's actions by key and in the palette. */
function usePointActions(
  { workspace, point, isShown, changed }: PointHeadProps,
  open: (which: Dialog) => void,
): { restore(): void; pin(): void } {
  const { save_point_id: id } = point;
  const restore = (): void => go({ view: "restore", workspace, point: id, paths: [] });
  const pin = (): void => {
    const verb = point.pinned ? "unpin" : "pin";
    const text = point.pinned ? "A cleanup may remove this save point again." : "No cleanup removes this save point.";
    void act(
      async () => call(verb, { workspace, target: id }),
      () => ({ text }),
    ).then((done) => done !== null && changed());
  };
  const files = (): void => go({ view: "files", workspace, point: id, at: { path: "" } });
  // Beside the timeline the keys are the timeline's.
  const isBeside = current.value.view !== "point";
  useActions([
    ...(isBeside ? [] : [{ key: "b", title: "Look at the files of this save point", run: files }]),
    ...(isReadOnly() || !isShown
      ? []
      : [
          { key: "r", title: "Restore this save point", run: restore },
          { key: "p", title: point.pinned ? "Unpin this save point" : "Pin this save point", run: pin },
          { title: "Fork this save point into a new folder", run: () => open("fork") },
          { title: "Change the tags of this save point", run: () => open("tags") },
        ]),
  ]);
  return { restore, pin };
}
