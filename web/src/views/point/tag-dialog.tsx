import { useSignal } from "@preact/signals";
import type { SavePoint } from "cairnstate/client";
import type { JSX } from "preact";
import { call } from "../../app/calls.ts";
import { act, isBusy } from "../../app/outcome.tsx";
import { Dialog } from "../../parts/dialog.tsx";
import { TextField } from "../../parts/fields.tsx";
import { tagsIn } from "../../parts/values.tsx";

export interface PointDialogProps {
  workspace: string;
  point: SavePoint;
  close(): void;
}

/** Changes the tags of a point. */
export function TagDialog({ workspace, point, close }: PointDialogProps): JSX.Element {
  const text = useSignal(point.tags.join(", "));
  const save = async (event: Event): Promise<void> => {
    event.preventDefault();
    const wanted = tagsIn(text.value);
    const add = wanted.filter((each) => !point.tags.includes(each));
    const remove = point.tags.filter((each) => !wanted.includes(each));
    const edit = { ...(add.length === 0 ? {} : { add }), ...(remove.length === 0 ? {} : { remove }) };
    if (add.length + remove.length === 0) return close();
    const done = await act(
      async () => call("tag", { workspace, target: point.save_point_id, edit }),
      () => ({ text: "The tags are changed." }),
    );
    if (done !== null) close();
  };
  return (
    <Dialog title="Tags" close={close}>
      <form class="stack" onSubmit={(event) => void save(event)}>
        <label>
          Tags, separated by commas
          <TextField text={text} />
        </label>
        <button type="submit" class="strong" disabled={isBusy.value}>
          Change
        </button>
      </form>
    </Dialog>
  );
}
