import { useSignal } from "@preact/signals";
import type { SavePoint } from "cairnstate/client";
import type { JSX } from "preact";
import { call } from "../../app/calls.ts";
import { useActions } from "../../app/keys.ts";
import { act, isBusy } from "../../app/outcome.tsx";
import { useResource } from "../../app/resource.ts";
import { href, isBackup, shortState } from "../../app/address.ts";
import { go, route as current } from "../../app/route.ts";
import { isReadOnly } from "../../app/session.ts";
import { causeText, turnOf } from "../../parts/cause.tsx";
import { Icon } from "../../parts/icon.tsx";
import { Name, visible, Words } from "../../parts/name.tsx";
import { count, size, When, wholeTime } from "../../parts/values.tsx";
import { ChooseDialog } from "./choose-dialog.tsx";
import { ForkDialog } from "./fork-dialog.tsx";
import { TagDialog } from "./tag-dialog.tsx";

export interface PointHeadProps {
  workspace: string;
  point: SavePoint;
  /** The other state of the comparison, as in the address. */
  to: string | undefined;
  /** False while another point is loading, and beside the timeline; then the keys do nothing. */
  isShown: boolean;
  /** Called after the point's pin or tags were changed. */
  changed(): void;
}

/** The head of a point's view: its message, facts and actions. */
export function PointHead({ workspace, point, to, isShown, changed }: PointHeadProps): JSX.Element {
  const { save_point_id: id, message } = point;
  const dialog = useSignal<Dialog | null>(null);
  const compare = (wanted: string | undefined): void => go({ view: "point", workspace, point: id, to: wanted });
  const marks = usePointActions(
    { workspace, point, to, isShown, changed },
    { compare, open: (which) => (dialog.value = which) },
  );
  return (
    <header class="point-head">
      <div class="point-title">
        <div
          class="point-words"
          {...(isLong(message) ? { tabIndex: 0, role: "region" as const, "aria-label": "Message" } : {})}
        >
          <h1>
            {to === "now" && <span class="faint">Now, since </span>}
            {message === "" ? <span class="faint">no message</span> : <Words text={message} isWhole />}
          </h1>
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
      {point.entries !== null && <span>{count(point.entries)} entries</span>}
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
      {point.labels.length > 0 && (
        <span
          title={visible(
            point.labels
              .map(({ path, label }) => `${path}: ${label}`)
              .slice(0, 20)
              .join("\n"),
          )}
        >
          {count(point.labels.length)} with a note on consistency
        </span>
      )}
    </p>
  );
}

type Dialog = "fork" | "tags";

/** Offers the point's actions by key and in the palette. */
function usePointActions(
  { workspace, point, to, isShown, changed }: PointHeadProps,
  { compare, open }: { compare(wanted: string | undefined): void; open(which: Dialog): void },
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
    ...(isBeside
      ? []
      : [
          {
            key: "d",
            title: "Compare with the folder as it is now",
            run: () => compare(to === "now" ? undefined : "now"),
          },
          { key: "b", title: "Look at the files of this save point", run: files },
        ]),
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

/** Returns the point before the agent's turn that made `point`; null if no turn made it, or if no point is older. */
async function startOfTurn(workspace: string, point: SavePoint, signal: AbortSignal): Promise<string | null> {
  const turn = turnOf(point);
  if (turn === null || turn.session === null || turn.turn === null) return null;
  const { save_points } = await call("history", { workspace, options: { grep: turn.session } }, { signal });
  const ofTurn = save_points.filter((each) => {
    const other = turnOf(each);
    return other?.session === turn.session && other.turn === turn.turn;
  });
  return ofTurn.at(-1)?.parent_id ?? null;
}

function CompareBar({
  workspace,
  point,
  to,
  compare,
}: {
  workspace: string;
  point: SavePoint;
  to: string | undefined;
  compare(wanted: string | undefined): void;
}): JSX.Element {
  const isChoosing = useSignal(false);
  const turn = turnOf(point);
  const start = useResource(`turn ${point.save_point_id}`, (signal) => startOfTurn(workspace, point, signal), {
    isFixed: true,
  });
  const before = start.value.value ?? null;
  const other = to === undefined || to === "now" || to === before ? "" : to;
  const named = useResource(`other ${workspace} ${other}`, async (signal) => {
    if (other === "" || isBackup(other)) return "";
    const found = await call("show", { workspace, target: other, options: { limit: 1 } }, { signal });
    const { created_at, message } = found.save_point;
    return `${wholeTime(created_at)} ${message.split("\n", 1)[0]!.slice(0, 60)}`;
  });
  return (
    <div class="compare" role="group" aria-label="Compare with">
      <span class="faint">Changes against</span>
      <button type="button" aria-pressed={to === undefined} onClick={() => compare(undefined)}>
        the point before
      </button>
      {turn !== null && before !== null && before !== point.parent_id && (
        <button type="button" aria-pressed={to === before} onClick={() => compare(before)}>
          before turn {visible(turn.turn!.slice(0, 20))}
        </button>
      )}
      <button type="button" aria-pressed={to === "now"} onClick={() => compare("now")}>
        the folder now
      </button>
      <button type="button" class="compared" aria-pressed={other !== ""} onClick={() => (isChoosing.value = true)}>
        {other === "" ? "another point…" : <Name text={named.value.value || shortState(other)} />}
      </button>
      {isChoosing.value && (
        <ChooseDialog workspace={workspace} choose={compare} close={() => (isChoosing.value = false)} />
      )}
    </div>
  );
}
