import { readFolder } from "../fixtures/folder-state.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";
import { type Live, replay } from "./replay.ts";

/** Commands that make points and that change the folder, killed at every pass. */

/** Two points that differ in every way a restore has to handle, then edits that nobody saved. */
async function twoPoints(live: Live): Promise<{ first: string; second: string }> {
  makeFirst(live.folder);
  const first = await live.save();
  makeSecond(live.folder);
  const second = await live.save();
  makeUnsaved(live.folder);
  return { first, second };
}

const folder = (live: Live): unknown => readFolder(live.folder);

replay("a first save, killed at any pass, can be repeated", async (live) => {
  makeFirst(live.folder);
  return {
    args: ["save", live.folder],
    look: folder,
    isRepeated: true,
    next: async () => (await live.client()).save({ skipUnchanged: true }),
  };
});

replay("save, killed at any pass, makes one complete point or none", async (live) => {
  await twoPoints(live);
  return {
    args: ["save", live.folder, "-m", "killed"],
    look: async () => {
      const { save_points: points } = await (await live.client()).history(undefined, 0, { all: true });
      return points.map(({ message }) => message);
    },
  };
});

replay("restore, killed at any pass, leaves the old or the new state", async (live) => {
  const { first } = await twoPoints(live);
  return { args: ["restore", first, "-C", live.folder], look: folder };
});
