import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { call } from "../../app/calls.ts";
import { act, isBusy } from "../../app/outcome.tsx";
import { href } from "../../app/address.ts";
import { Dialog } from "../../parts/dialog.tsx";
import { TextField } from "../../parts/fields.tsx";
import { Name } from "../../parts/name.tsx";
import type { PointDialogProps } from "./tag-dialog.tsx";

/** Asks for a path and makes a fork of a point there. */
export function ForkDialog({ workspace, point, close }: PointDialogProps): JSX.Element {
  const folder = useSignal(`${workspace}-${point.save_point_id.slice(0, 6)}`);
  const fork = async (event: Event): Promise<void> => {
    event.preventDefault();
    const made = await act(
      async () => call("fork", { workspace, target: point.save_point_id, path: folder.value }),
      (answer) => ({
        text: (
          <>
            The fork is{" "}
            <a href={href({ view: "timeline", workspace: answer.workspace.path })}>
              <Name text={answer.workspace.path} />
            </a>
          </>
        ),
      }),
    );
    if (made !== null) close();
  };
  return (
    <Dialog title="Fork" close={close}>
      <form class="stack" onSubmit={(event) => void fork(event)}>
        <p>A fork is a new folder with the state of this save point. It has save points of its own.</p>
        <label>
          New folder
          <TextField text={folder} required />
        </label>
        <button type="submit" class="strong" disabled={isBusy.value}>
          Make the fork
        </button>
      </form>
    </Dialog>
  );
}
