import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { call } from "../../app/calls.ts";
import { tellOutcome } from "../../app/outcome.tsx";
import { problemOf, useResource } from "../../app/resource.ts";
import { about, client } from "../../app/session.ts";
import { Dialog } from "../../parts/dialog.tsx";
import { TextField } from "../../parts/fields.tsx";
import { Icon } from "../../parts/icon.tsx";
import { Name } from "../../parts/name.tsx";
import { count, plural } from "../../parts/numbers.ts";
import { type Found, Problem } from "../../parts/problem.tsx";

/** Chooses a folder, makes it a workspace and saves it. */

export function AddFolderDialog({ close }: { close(): void }): JSX.Element {
  return (
    <Dialog title="Add a folder" close={close}>
      <AddFolder done={close} />
    </Dialog>
  );
}

/** A field for the folder's path, the folders to which it may lead, and the button that saves. */
export function AddFolder({ done }: { done(): void }): JSX.Element {
  const typed = useSignal(`${about.value?.home ?? ""}/`);
  const saving = useSignal<string | null>(null);
  const problem = useSignal<Found | null>(null);
  const folder = typed.value.replace(/\/+$/, "") || "/";
  const save = async (event: Event): Promise<void> => {
    event.preventDefault();
    if (saving.value !== null) return;
    saving.value = "Saving…";
    problem.value = null;
    try {
      const told = await firstSave(folder, (words) => (saving.value = words));
      tellOutcome({ text: told });
      done();
    } catch (error) {
      problem.value = problemOf(error);
    } finally {
      saving.value = null;
    }
  };
  return (
    <form class="stack add-folder" onSubmit={(event) => void save(event)}>
      <label>
        Folder
        <TextField text={typed} spellcheck={false} />
      </label>
      <Inside typed={typed.value} choose={(path) => (typed.value = path)} />
      {problem.value !== null && <Problem problem={problem.value} />}
      <p class="faint">The folder stays as it is, and no file is moved. Every save keeps its whole state.</p>
      <button type="submit" class="strong" disabled={saving.value !== null || !folder.startsWith("/")}>
        {saving.value ?? "Save this folder"}
      </button>
    </form>
  );
}

/** Makes a folder a workspace, if it is none yet, and saves it. */
async function firstSave(folder: string, tell: (words: string) => void): Promise<string> {
  const { workspace } = await call("register", { path: folder });
  const { entries, left_out: left } = await call(
    "save",
    { workspace: workspace.path },
    { onProgress: ({ done }) => tell(`Saving… ${count(done)}`) },
  );
  const saved = entries === null ? "Saved." : `${plural(entries, "entry", "entries")} saved.`;
  return left.length === 0 ? saved : `${saved} ${plural(left.length, "entry", "entries")} could not be read.`;
}

/** Lists the folders whose path begins with the typed text, and the folder above. */
function Inside({ typed, choose }: { typed: string; choose(path: string): void }): JSX.Element {
  const cut = typed.lastIndexOf("/");
  const parent = typed.slice(0, cut + 1) || "/";
  const begin = typed.slice(cut + 1).toLowerCase();
  const { value, problem } = useResource(`folders ${parent}`, async () => client().folders(parent), { isFresh: true });
  const found = value?.folders.filter((each) => each.toLowerCase().startsWith(begin)) ?? [];
  const above = parent.slice(0, parent.slice(0, -1).lastIndexOf("/") + 1);
  return (
    <ul class="folders" aria-label="Folders">
      {above !== "" && (
        <li>
          <button type="button" class="quiet" onClick={() => choose(above)}>
            <Icon name="undo" /> the folder above
          </button>
        </li>
      )}
      {problem === null ? (
        found.map((name) => (
          <li key={name}>
            <button type="button" class="quiet" onClick={() => choose(`${parent}${name}/`)}>
              <Icon name="folder" /> <Name text={name} />
            </button>
          </li>
        ))
      ) : (
        <li class="faint">This folder cannot be listed.</li>
      )}
    </ul>
  );
}
