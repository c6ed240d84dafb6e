import { readFolder } from "../fixtures/folder-state.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";
import { cutPower } from "./power-cuts.ts";

/** The power is cut at any time of an undo. */

cutPower("a power cut during an undo leaves the old or the new state", async (live) => {
  makeFirst(live.folder);
  const first = await live.save();
  makeSecond(live.folder);
  await live.save();
  makeUnsaved(live.folder);
  const client = await live.client();
  await client.restore({ target: first });
  return {
    args: ["undo", "-C", live.folder],
    look: () => readFolder(live.folder, { withoutRootTime: true }),
    isOrdered: true,
    // Entries change places only if they are the recorded ones.
    needsInodes: /\/journal\/restore\.steps$/,
  };
});
