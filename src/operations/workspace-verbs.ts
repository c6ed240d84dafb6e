import type { CLIENT_VERBS } from "../contract/index.ts";
import type { Call, Method } from "../contract/verb.ts";
import type { SealProblem } from "../workspace/points/seal.ts";
import type { Workspace, WorkspaceParts } from "../workspace/workspace.ts";
import { previewCleanup } from "./cleanup.ts";
import { diff } from "./diff.ts";
import { seal, verify, verifyAll } from "./verify.ts";
import { currentReasons, doctor, setEngine } from "./engine.ts";
import { closeView, fork, listViews, view } from "./fork.ts";
import { history } from "./history.ts";
import { pin, tag, unpin } from "./marks.ts";
import { publicPoint } from "./public-point.ts";
import { planRestore, planUndo, restore, restoreLatest, restoreTo, undo } from "./restore.ts";
import { save } from "./save.ts";
import { read, show, walk } from "./show.ts";
import { status } from "./status.ts";
import { store } from "./store.ts";

/** Parts with which a verb is carried out. */
export interface Hand {
  readonly workspace: Workspace;
  readonly parts: WorkspaceParts;
  /** points that could not be sealed, of a verb that needs sealed ones */
  readonly unsealed: readonly SealProblem[];
}

/** A verb on a workspace: what it needs, and the function that carries it out. */
export interface Row<V> {
  /** It needs contents or digests: points that only clones hold are sealed first. */
  readonly seals?: boolean | ((...given: Call<V>) => boolean);
  /** It only reads: a pack that another process moved away meanwhile is looked up once more. */
  readonly reads?: boolean;
  run(hand: Hand, ...given: Call<V>): ReturnType<Method<V>> | Awaited<ReturnType<Method<V>>>;
}

type Rows<Names extends keyof typeof CLIENT_VERBS> = { readonly [Name in Names]: Row<(typeof CLIENT_VERBS)[Name]> };

/** Verbs that need no more than the workspace that their `workspaceName` means. */
export const WORKSPACE_VERBS = {
  save: { run: ({ workspace }, options) => save(workspace, options) },
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
    seals: (_name, _limit, { path }) => path !== undefined,
    reads: true,
    run: ({ workspace }, _name, limit, options) => history(workspace, limit ?? 0, options),
  },
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
  show: {
    seals: true,
    reads: true,
    run: ({ workspace }, target, path, options) => show(workspace, target, path ?? "", options),
  },
  walk: { run: ({ workspace }, target, path, options) => walk(workspace, target, path ?? "", options) },
  read: { run: ({ workspace }, target, path, options) => read(workspace, target, path, options) },
  verify: {
    seals: true,
    run: ({ workspace, unsealed }, target, options) =>
      verify(workspace, target, { ...options, unsealed: new Map([[workspace.found.workspace.name, unsealed]]) }),
  },
  verifyAll: { run: ({ workspace, parts }, options) => verifyAll(workspace, parts, options) },
  fork: {
    seals: true,
    run: ({ workspace, parts }, point, path, options) => fork(workspace, { point, path }, { ...options, parts }),
  },
  view: { seals: true, run: ({ workspace }, target, options) => view(workspace, target, options) },
  listViews: { run: ({ workspace }) => listViews(workspace) },
  closeView: { run: ({ workspace }, id) => closeView(workspace, id) },
  pin: { run: ({ workspace }, target, options) => pin(workspace, target, options) },
  unpin: { run: ({ workspace }, target, options) => unpin(workspace, target, options) },
  tag: { run: ({ workspace }, target, edit, options) => tag(workspace, target, { edit, options }) },
  previewCleanup: { seals: true, run: ({ workspace }, options) => previewCleanup(workspace, options) },
  doctor: { run: ({ workspace }, options) => doctor(workspace, options) },
  store: { run: ({ workspace }, options) => store(workspace, options) },
  setEngine: { run: ({ workspace }, type, options) => setEngine(workspace, type, options) },
  seal: { run: ({ workspace }, options) => seal(workspace, options) },
} satisfies Partial<Rows<keyof typeof CLIENT_VERBS>>;
