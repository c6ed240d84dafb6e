import { readFolder } from "../fixtures/folder-state.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";
import { cutPower } from "./power-cuts.ts";

/** The power is cut at any time of a restore. */

cutPower("a power cut during a restore leaves the old or the new state", async (live) => {
  makeFirst(live.folder);
  const first = await live.save();
  makeSecond(live.folder);
  await live.save();
  makeUnsaved(live.folder);
  return {
    args: ["restore", first, "-C", live.folder],
    look: () => readFolder(live.folder, { withoutRootTime: true }),
    isOrdered: true,
    // Entries change places only if they are the recorded ones.
    needsInodes: /\/journal\/restore\.steps$/,
  };
});
