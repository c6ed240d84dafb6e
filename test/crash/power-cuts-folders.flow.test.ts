import fs from "node:fs";
import { readFolder } from "../fixtures/folder-state.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { cutPower } from "./power-cuts.ts";

/** Commands that move workspaces; the power is cut at any time. */

cutPower(
  "a power cut during relocate leaves the points at the old folder or the new one, and a repeat ends it",
  async (live) => {
    makeFirst(live.folder);
    await live.save();
    const old = live.folder;
    await live.close();
    live.folder = live.at("moved");
    fs.renameSync(old, live.folder);
    return {
      args: ["relocate", old, live.folder],
      next: async () => {
        const library = await live.library();
        const listed = await library.listWorkspaces();
        if (listed.some(({ path: place }) => place === old)) await library.relocate(old, live.folder);
        await (await live.client()).save({ skipUnchanged: true });
      },
      look: () => readFolder(live.folder),
      isRepeated: true,
    };
  },
);
