import { plural } from "../../formats/sizes.ts";
import { LiveSet, requireComplete } from "../../repository/trees/live.ts";
import { whileReading } from "../../repository/locks.ts";
import { advice, CairnError, call, line, word } from "../../errors.ts";
import { treesOf } from "./copy-content.ts";
import type { PointContent, StoppableCall } from "./engine.ts";
import type { EmbeddedStore } from "./embedded-store.ts";

const TAG = "cairn:";
const DAMAGED_HINT = advice`run ${call("doctor --repair", "doctor", { repair: true })}; then remove all points that are still damaged (${call("verify --all", "verifyAll")} names them) except head in one call: ${call("cleanup drop POINT…", "previewCleanup", { only: [word("POINT…")] })}. Nothing was removed`;

/** Points whose common share of the store is computed. */
export type HeldGroup = readonly { id: string; content: PointContent }[];

/** Content of the points that are kept. */
export interface KeptContent {
  contents: readonly PointContent[];
  /** ids of points with an unreadable descriptor (null: the id is unknown too); only their snapshot's tag leads to their content */
  unreadable: readonly (string | null)[];
}

/**
 * Returns the bytes of all content outside the groups, then the total after each group. Throws `damaged` if kept
 * content is incomplete. Of a damaged group only the content that exists counts.
 */
export async function heldBytes(
  store: EmbeddedStore,
  groups: readonly HeldGroup[],
  { others, signal }: { others: KeptContent } & StoppableCall,
): Promise<number[]> {
  return whileReading(store.repository, { waitMs: 10_000, signal }, async () => {
    await store.refresh(signal);
    const live = new LiveSet(store.index);
    const { viewTree: readTree } = store.blobs;
    const asked = new Set(groups.flat().map(({ id }) => `${TAG}${id}`));
    await live.mark(
      [
        ...(await snapshotTrees(store, { without: asked, unreadable: others.unreadable, signal })),
        ...others.contents.flatMap(treesOf),
      ],
      readTree,
      { signal },
    );
    // A group may lack content. The group is removed with it, or kept and checked again once all removed points are known.
    requireComplete(live, { hint: DAMAGED_HINT, mayLackData: true });
    const bytes = [live.bytes];
    for (const group of groups) {
      await live.mark(
        group.flatMap(({ content }) => treesOf(content)),
        readTree,
        { signal },
      );
      bytes.push(live.bytes);
    }
    return bytes;
  });
}

/** Root trees of all snapshots except those of some points. Throws `damaged` if a snapshot is unreadable: its content is unknown. */
async function snapshotTrees(
  store: EmbeddedStore,
  ask: { without: ReadonlySet<string>; unreadable: KeptContent["unreadable"]; signal?: AbortSignal },
): Promise<Uint8Array[]> {
  const { snapshots, damaged } = await store.repository.listSnapshots(ask.signal);
  const [first] = damaged;
  if (first !== undefined)
    throw new CairnError(
      "damaged",
      `snapshot ${first.name.slice(0, 8)} cannot be read, so Cairn does not know which content it needs`,
      {
        hint: advice`run ${call("doctor --repair", "doctor", { repair: true })} first`,
      },
    );
  requireMarks(ask.unreadable, new Set(snapshots.flatMap(({ snapshot }) => snapshot.tags ?? [])));
  return snapshots
    .filter(({ snapshot }) => snapshot.tags?.some((tag) => ask.without.has(tag)) !== true)
    .map(({ snapshot }) => Buffer.from(snapshot.tree, "hex"));
}

/** Throws `damaged` if a point with an unreadable descriptor has no snapshot either: its content is unknown then. */
export function requireMarks(unreadable: KeptContent["unreadable"], tags: ReadonlySet<string>): void {
  const lost = unreadable.filter((id) => id === null || !tags.has(`${TAG}${id}`));
  if (lost.length === 0) return;
  throw new CairnError(
    "damaged",
    `${plural(lost.length, "save point")} cannot be read, so Cairn does not know which content they need: ${lost.map((id) => id?.slice(0, 8) ?? "?").join(", ")}`,
    {
      hint: advice`run ${line("doctor --repair", "doctor", { repair: true })} first; nothing was removed`,
    },
  );
}
