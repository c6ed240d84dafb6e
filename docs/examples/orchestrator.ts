/**
 * A job of an orchestrator: it brings its workspace back, works, and saves. Run it again, after a crash or on another
 * host that sees the same folder, and it goes on where the last one ended.
 *
 *     node docs/examples/orchestrator.ts /shared/agent-7
 */
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { CairnError, openOrInit } from "cairnstate";

const root = process.argv[2] ?? "agent-7";

try {
  // Any number of hosts may do this at once: one makes it, all get it.
  await using client = await openOrInit(root, { selfContained: true, name: "agent-7" });

  // Back to the point the workspace stands at. A rollback stays a rollback; what a crash left unsaved is saved first.
  const restored = await client.restoreLatest();
  // An engine that exchanges whole trees compares nothing.
  const { created, updated, deleted } = restored.changes ?? { created: 0, updated: 0, deleted: 0 };
  const isOther = restored.method === "exchange" || created + updated + deleted > 0;
  if (restored.restored_to === null) console.log("a new workspace");
  else console.log(`at ${restored.restored_to}: ${created} created, ${updated} updated, ${deleted} deleted`);
  if (restored.undo_id !== null && isOther) console.log(`what was there before: restore ${restored.undo_id}`);

  // The work: one line a run.
  const folder = client.workspacePath("main");
  appendFileSync(join(folder, "runs.log"), `run after ${restored.restored_to ?? "nothing"}\n`);
  // An unclean end, for the example's sake: the line above is not saved.
  if (process.argv.includes("--crash")) process.exit(1);

  const saved = await client.save({
    message: "end of the job",
    tags: ["auto"],
    cause: { kind: "schedule", job: "agent-7" },
  });
  const { changes } = saved;
  const what = changes === null ? "held, not read yet" : `${changes.added} added, ${changes.modified} modified`;
  console.log(`saved ${saved.save_point_id}: ${what}`);
} catch (error) {
  if (!(error instanceof CairnError)) throw error;
  // `retryable` is for the orchestrator: another host may hold the lock for a moment.
  console.error(`${error.code}${error.retryable ? " (try again)" : ""}: ${error.message}`);
  process.exitCode = error.exitStatus;
}
