import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";
import { cutPower } from "./power-cuts.ts";
import type { Live } from "./replay.ts";

/** Commands that make points and that change the folder; the power is cut at any time. */

async function twoPoints(live: Live): Promise<{ first: string; second: string }> {
  makeFirst(live.folder);
  const first = await live.save();
  makeSecond(live.folder);
  const second = await live.save();
  makeUnsaved(live.folder);
  return { first, second };
}

cutPower("a power cut during a save leaves one complete point or none", async (live) => {
  await twoPoints(live);
  return {
    args: ["save", live.folder, "-m", "cut"],
    look: async () => {
      const { save_points: points } = await (await live.client()).history(undefined, 0, { all: true });
      return points.some(({ message }) => message === "cut");
    },
  };
});
