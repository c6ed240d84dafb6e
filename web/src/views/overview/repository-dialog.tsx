import { type Signal, useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { call } from "../../app/calls.ts";
import { problemOf } from "../../app/resource.ts";
import { client } from "../../app/session.ts";
import { Dialog } from "../../parts/dialog.tsx";
import { TextField } from "../../parts/fields.tsx";
import { Words } from "../../parts/name.tsx";
import { type Found, Problem } from "../../parts/problem.tsx";

/** Makes or names the repository of a workspace's backups, and backs up. Passwords stay on the server. */
export function RepositoryDialog({
  workspace,
  close,
  kept: told,
}: {
  workspace: string;
  close(): void;
  kept(): void;
}): JSX.Element {
  const repository = useSignal("");
  const isNew = useSignal(true);
  const file = useSignal("");
  const busy = useSignal<string | null>(null);
  const problem = useSignal<Found | null>(null);
  const made = useSignal<string | null>(null);
  const isDone = useSignal(false);
  const keep = async (event: Event): Promise<void> => {
    event.preventDefault();
    busy.value = isNew.value ? "Making the repository…" : "Opening the repository…";
    problem.value = null;
    try {
      const given = isNew.value ? {} : { passwordFile: file.value };
      const answer = await client().keepRepository({ workspace, repository: repository.value.trim(), ...given });
      made.value = answer.made ? answer.password_file : null;
      isDone.value = true;
      busy.value = "Backing up…";
      const { ran } = await call("due", { workspace });
      const failed = ran.find(({ error }) => error !== null)?.error ?? null;
      if (failed !== null) problem.value = { ...failed, hint: failed.hint ?? undefined };
    } catch (error) {
      problem.value = problemOf(error);
    } finally {
      busy.value = null;
      if (isDone.value) told();
    }
  };
  return (
    <Dialog title="Back up" close={close}>
      {isDone.value ? (
        <Kept
          said={busy.value ?? (problem.value === null ? "Backed up." : "The repository is kept.")}
          made={made.value}
        >
          {problem.value !== null && <Problem problem={problem.value} />}
        </Kept>
      ) : (
        <form class="stack" onSubmit={(event) => void keep(event)}>
          <Fields repository={repository} isNew={isNew} file={file} />
          {problem.value !== null && <Problem problem={problem.value} />}
          <button type="submit" class="strong" disabled={busy.value !== null || repository.value.trim() === ""}>
            {busy.value ?? "Keep it and back up"}
          </button>
        </form>
      )}
    </Dialog>
  );
}

/** The fields of the form: where the repository is, if it is new, and the file of its password if not. */
function Fields({
  repository,
  isNew,
  file,
}: {
  repository: Signal<string>;
  isNew: Signal<boolean>;
  file: Signal<string>;
}): JSX.Element {
  return (
    <>
      <label>
        Repository
        <TextField text={repository} placeholder="/mnt/disk/backups or sftp:host:/backups" spellcheck={false} />
      </label>
      <label class="check">
        <input type="radio" name="which" checked={isNew.value} onChange={() => (isNew.value = true)} />
        Make it, with a new password
      </label>
      <label class="check">
        <input type="radio" name="which" checked={!isNew.value} onChange={() => (isNew.value = false)} />
        It exists
      </label>
      {!isNew.value && (
        <label>
          File with its password
          <TextField text={file} placeholder="/home/ann/.backup-password" spellcheck={false} />
        </label>
      )}
    </>
  );
}

/** What was done, and what a person must do with a new password. */
function Kept({
  said,
  made,
  children,
}: {
  said: string;
  made: string | null;
  children: ComponentChildren;
}): JSX.Element {
  return (
    <div class="stack" role="status">
      <p>{said}</p>
      {made !== null && (
        <p>
          Copy this file to another place: without the password in it nobody can read the backups.{" "}
          <code>
            <Words text={made} isWhole />
          </code>
        </p>
      )}
      <p class="faint">
        This machine backs up by itself after <code>cairn service install --timer</code> in a terminal.
      </p>
      {children}
    </div>
  );
}
