import { release } from "../../workspace/care/release.ts";
import { createBackup, restoreBackup } from "../backup.ts";
import { policy, previewCleanup, runCleanup, setPolicy, workspaceOfPlan } from "../cleanup.ts";
import { diffDatabase } from "../databases/diff-database.ts";
import { diff } from "../diff.ts";
import { verifyPoint } from "../../workspace/care/verify.ts";
import { orThrown, seal, verifyAll } from "../verify.ts";
import { currentReasons, doctor, setEngine } from "../engine.ts";
import { closeView, exportPoint, fork, listViews, restoreTo, view } from "../directories/fork.ts";
import { history, why } from "../history.ts";
import { backupRepository, setBackupRepository } from "../kept-repository.ts";
import { pin, tag, unpin } from "../marks.ts";
import { publicPoint, shortIds } from "../public-point.ts";
import { restore, restoreLatest, undo } from "../restore.ts";
import { planRestore, planUndo } from "../restore-plan.ts";
import type { ClientRows } from "./row.ts";
import { run } from "../run.ts";
import { importTree, save } from "../save.ts";
import { read, show, walk } from "../show.ts";
import { status, store } from "../status.ts";

/** Verbs of a client, each with what it needs. */
export const CLIENT_ROWS: ClientRows = {
  save: { run: ({ workspace }, options) => save(workspace, options) },
  importTree: { run: ({ workspace }, tree, options) => importTree(workspace, tree, options) },
  restore: {
    seals: ({ to }) => to !== undefined,
    run: ({ workspace }, { to, ...options }) =>
      to === undefined ? restore(workspace, options) : restoreTo(workspace, { ...options, to }),
  },
  planRestore: { seals: true, reads: true, run: ({ workspace }, options) => planRestore(workspace, options) },
  undo: { run: ({ workspace }, options) => undo(workspace, options) },
  planUndo: { seals: true, reads: true, run: ({ workspace }, options) => planUndo(workspace, options) },
  restoreLatest: { run: ({ workspace }, _name, options) => restoreLatest(workspace, options) },
  history: {
    reads: true,
    run: ({ workspace }, _name, limit, options) => history(workspace, limit ?? 0, options),
  },
  why: { seals: true, reads: true, run: ({ workspace }, path, options) => why(workspace, path, options) },
  latestSavePoint: {
    run({ workspace }) {
      const latest = workspace.points.latest();
      return latest === null ? null : publicPoint(latest);
    },
  },
  hasSavePoints: { run: ({ workspace }) => workspace.points.latest() !== null },
  resolve: { run: ({ workspace }, target) => publicPoint(workspace.resolve(target)) },
  status: {
    seals: true,
    reads: true,
    run: async ({ workspace, unsealed }, options) =>
      status(workspace, { ...options, unsealed }, await currentReasons(workspace.found, options)),
  },
  diff: { seals: true, reads: true, run: ({ workspace }, a, b, options) => diff(workspace, a, b ?? null, options) },
  diffDatabase: { run: ({ workspace }, path, a, b, options) => diffDatabase(workspace, path, [a, b ?? null], options) },
  show: {
    seals: true,
    reads: true,
    run: ({ workspace }, target, path, options) => show(workspace, target, path ?? "", options),
  },
  walk: { run: ({ workspace }, target, path, options) => walk(workspace, target, path ?? "", options) },
  read: { run: ({ workspace }, target, path, options) => read(workspace, target, path, options) },
  verify: {
    seals: true,
    run: async ({ workspace, unsealed }, target, options) =>
      orThrown(
        await verifyPoint(workspace, target, {
          ...options,
          unsealed: new Map([[workspace.found.workspace.name, unsealed]]),
        }),
        options,
      ),
  },
  verifyAll: {
    run: async ({ workspace, parts }, options) => orThrown(await verifyAll(workspace, parts, options), options),
  },
  fork: {
    seals: true,
    run: ({ workspace, parts }, point, path, options) => fork(workspace, { point, path }, { ...options, parts }),
  },
  exportPoint: { seals: true, run: ({ workspace }, point, to, options) => exportPoint(workspace, point, to, options) },
  view: { seals: true, run: ({ workspace }, target, options) => view(workspace, target, options) },
  listViews: { run: ({ workspace }) => listViews(workspace) },
  closeView: { run: ({ workspace }, id) => closeView(workspace, id) },
  pin: { run: ({ workspace }, target, options) => pin(workspace, target, options) },
  unpin: { run: ({ workspace }, target, options) => unpin(workspace, target, options) },
  tag: { run: ({ workspace }, target, edit, options) => tag(workspace, target, { edit, options }) },
  previewCleanup: { run: ({ workspace }, options) => previewCleanup(workspace, options) },
  doctor: { run: ({ workspace }, options) => doctor(workspace, options) },
  store: { run: ({ workspace }, options) => store(workspace, options) },
  setEngine: { run: ({ workspace }, type, options) => setEngine(workspace, type, options) },
  seal: { run: ({ workspace }, options) => seal(workspace, options) },
  runCleanup: {
    needs: "nothing",
    run: ({ control, within }, planId, options) =>
      within(workspaceOfPlan(control(), planId), async (workspace) => runCleanup(workspace, planId, options)),
  },
  createBackup: { needs: "nothing", run: createBackup },
  restoreBackup: { needs: "nothing", run: restoreBackup },
  backupRepository: { run: ({ workspace }) => backupRepository(workspace) },
  setBackupRepository: { run: ({ workspace }, edit, options) => setBackupRepository(workspace, edit, options) },
  run: {
    needs: "nothing",
    run: ({ client, within }, command, options) =>
      run(command, options, {
        // By no call of the client: that may have been closed when the command ends.
        save: async (saving) => within(saving.workspaceName, async (workspace) => save(workspace, saving)),
        root: client.workspacePath(options.workspaceName),
      }),
  },
  release: {
    needs: "nothing",
    async run({ removals, within }, options) {
      await removals.settled();
      return within(options.workspaceName, async (workspace) => release(workspace, options));
    },
  },
  policy: { needs: "control", run: policy },
  setPolicy: { needs: "control", run: setPolicy },
  shortIds: { needs: "control", run: shortIds },
};
