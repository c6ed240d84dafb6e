import { useSignal } from "@preact/signals";
import type { Changes, StatusResult } from "cairnstate/client";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { href } from "../../app/address.ts";
import { call } from "../../app/calls.ts";
import { onEvent } from "../../app/events.ts";
import { useActions } from "../../app/keys.ts";
import { now } from "../../app/now.ts";
import { act, isBusy } from "../../app/outcome.tsx";
import { type Resource, useResource } from "../../app/resource.ts";
import { go, route } from "../../app/route.ts";
import { isReadOnly } from "../../app/session.ts";
import { Dialog } from "../../parts/dialog.tsx";
import { TextField } from "../../parts/fields.tsx";
import { Icon } from "../../parts/icon.tsx";
import { count, plural } from "../../parts/numbers.ts";
import { Problem, waiting } from "../../parts/problem.tsx";
import { tagsIn, timeOfDay } from "../../parts/values.tsx";

/** Milliseconds between two looks at a folder that no daemon watches. A slow look is followed by a longer pause. */
const LOOK_MS = 2_000;
const PAUSE_PER_LOOK = 10;

/** The first row of the timeline: how the folder differs from the point that it is based on. */
export function NowRow({ workspace, isActive }: { workspace: string; isActive: boolean }): JSX.Element | null {
  const isSaving = useSignal(false);
  const { value, isOld, problem, reload } = useNow(workspace);
  const status = value?.status;
  const isUnsaved = status !== undefined && !status.clean;
  const canSave = isUnsaved && !isReadOnly();
  useActions(canSave ? [{ key: "S", title: "Save the folder", run: () => (isSaving.value = true) }] : []);
  if (problem !== null) {
    const message = `Now: the folder cannot be looked at since ${timeOfDay(problem.since)}: ${problem.message}`;
    return <Problem problem={{ ...problem, message }} again={reload} />;
  }
  if (status === undefined) return <div class="now-row" aria-hidden="true" />;
  const { head, changes, not_kept } = status;
  const said = isUnsaved ? `${words(changes, not_kept.count)}, not saved` : "Everything is saved";
  return (
    <div class="now-row" data-active={isActive} data-unsaved={isUnsaved} {...waiting(isOld)}>
      {head !== null && isUnsaved ? (
        <a class="now-words" href={href({ view: "point", workspace, point: head, to: "now" })}>
          <strong>Now</strong> {said}
        </a>
      ) : (
        <span class="now-words">
          <strong>Now</strong> {said}
        </span>
      )}
      {canSave && (
        <>
          <button type="button" class="strong" disabled={isBusy.value} onClick={() => (isSaving.value = true)}>
            Save…
          </button>
          {head !== null && (
            <a class="button" href={href({ view: "restore", workspace, point: head, paths: [], back: true })}>
              <Icon name="undo" /> Take back…
            </a>
          )}
        </>
      )}
      {isSaving.value && <SaveDialog workspace={workspace} close={() => (isSaving.value = false)} />}
    </div>
  );
}

/** Loads the folder's state again after each event, and while the page is looked at if no daemon watches the folder. */
function useNow(workspace: string): Resource<{ status: StatusResult; took: number }> {
  const resource = useResource(
    `now ${workspace}`,
    async (signal) => {
      const begun = performance.now();
      const status = await call("status", { workspace }, { signal });
      return { status, took: performance.now() - begun };
    },
    { isOfNow: true },
  );
  const { value, problem, reload } = resource;
  useEffect(
    () => onEvent((event) => (event.workspace === workspace || event.workspace === null) && reload()),
    [workspace],
  );
  useEffect(() => {
    if (value === undefined && problem === null) return undefined;
    now.value = { workspace, status: value?.status ?? null };
    if (value?.status.watched === true) return undefined;
    const look = (): void => {
      if (!document.hidden) reload();
    };
    const next = setTimeout(look, Math.max(LOOK_MS, (value?.took ?? 0) * PAUSE_PER_LOOK));
    document.addEventListener("visibilitychange", look);
    return () => {
      clearTimeout(next);
      document.removeEventListener("visibilitychange", look);
    };
  }, [value, problem, workspace]);
  return resource;
}

/** `3 changed, 1 new`. */
function words({ added, modified, removed }: Changes, notKept: number): string {
  const parts = [
    [modified, "changed"],
    [added, "new"],
    [removed, "removed"],
    [notKept, "no longer kept"],
  ] as const;
  return parts.flatMap(([number, what]) => (number > 0 ? [`${count(number)} ${what}`] : [])).join(", ");
}

/** Asks for a message and tags, and saves. */
function SaveDialog({ workspace, close }: { workspace: string; close(): void }): JSX.Element {
  const message = useSignal("");
  const tags = useSignal("");
  const save = async (event: Event): Promise<void> => {
    event.preventDefault();
    const given = tagsIn(tags.value);
    const options = { message: message.value, ...(given.length === 0 ? {} : { tags: given }) };
    const done = await act(
      async () => call("save", { workspace, options }),
      ({ left_out }) => ({
        text:
          left_out.length === 0 ? "Saved." : `Saved. ${plural(left_out.length, "entry", "entries")} could not be read.`,
      }),
    );
    if (done === null) return;
    close();
    // The changes that were not saved are those of the new point now.
    const at = route.value;
    if (at.view === "point" && at.to === "now")
      go({ view: "point", workspace, point: done.save_point_id, file: at.file }, { replace: true });
  };
  return (
    <Dialog title="Save" close={close}>
      <form class="stack" onSubmit={(event) => void save(event)}>
        <label>
          Message
          <TextField text={message} />
        </label>
        <label>
          Tags, separated by commas
          <TextField text={tags} />
        </label>
        <button type="submit" class="strong" disabled={isBusy.value}>
          Save
        </button>
      </form>
    </Dialog>
  );
}
