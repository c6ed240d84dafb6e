import { errorOf } from "../../../contract/error-record.ts";
import { type CairnError, type ErrorCode, reworded, toCairnError } from "../../../errors.ts";
import type { DueResult } from "../../../verbs/schemas.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import { EXIT_PARTLY } from "../../envelope.ts";
import { plural, printable } from "../../render/format.ts";

type Done = DueResult & { path: string; error: { code: string; message: string; hint: string | null } | null };

const NOTHING: DueResult = { ran: [], save_point_id: null, snapshot_id: null, removed: [], partly: false };

export const command: CommandDefinition = {
  name: "due",
  examples: [
    { line: "cairn due", text: "for a timer or cron: save, back up and check each of your folders that is due" },
  ],
  async run(context) {
    const library = await context.library();
    const options = context.callOptions();
    const folders: Done[] = [];
    const errors: CairnError[] = [];
    for (const { path, present } of await library.listWorkspaces(options)) {
      const done: Done = { path, ...NOTHING, error: null };
      folders.push(done);
      try {
        await using client = await library.open(path, context.openOptions()).catch((error: unknown) => {
          if (present) throw error;
          context.note(`${path} is not there, so it was not saved`);
          return null;
        });
        if (client !== null) Object.assign(done, await client.due(options));
        done.error = done.ran.find(({ error }) => error !== null)?.error ?? null;
        if (done.error !== null) throw errorOf({ retryable: false, ...done.error, code: done.error.code as ErrorCode });
      } catch (thrown) {
        const error = toCairnError(thrown);
        if (error.code === "interrupted") throw error;
        const { code, message, hint } = error;
        done.error ??= { code, message, hint: hint ?? null };
        errors.push(reworded(error, { message: `${path}: ${message}` }));
      }
    }
    const outcome: Outcome = {
      data: { folders },
      exitStatus: folders.some(({ partly }) => partly) ? EXIT_PARTLY : 0,
      text: () => folders.map(render).join("\n") || "you have no workspace yet; `cairn save DIR` makes one",
    };
    const [first] = errors;
    if (first === undefined) return outcome;
    const error = reworded(first, { message: errors.map(({ message }) => message).join("; ") });
    return { ...outcome, exitStatus: error.exitStatus, error };
  },
};

function render({ path, ran, save_point_id: point, snapshot_id: snapshot, removed, error }: Done): string {
  const checks = ran.filter(({ kind, error: failed }) => failed === null && /verify|check/.test(kind));
  const words = [
    point === null ? (error === null ? "nothing new to save" : null) : `saved as ${point.slice(0, 8)}`,
    snapshot === null ? null : `backed up as ${snapshot.slice(0, 8)}`,
    removed.length === 0 ? null : `${plural(removed.length, "snapshot")} removed`,
    ...checks.map(({ kind }) => (kind === "verify" ? "verified" : "restore checked")),
    error === null ? null : `failed: ${printable(error.message)}`,
  ];
  return `${printable(path)}: ${words.filter((each) => each !== null).join(", ")}`;
}
