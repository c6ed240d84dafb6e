import fs from "node:fs";
import { test } from "node:test";
import { installForOrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";
import { newFolder } from "../fixtures/work.ts";
import { USER_STEPS, UserWorld } from "./user-walk.ts";
import { addTaken, Chance, shownTaken, takeWalk, type Taken, walksOf } from "./walk.ts";

/** A walk as of test/fuzz/workspace.flow.test.ts, by commands of an ordinary user; every command is a process. */
test(
  "restore and undo by an ordinary user lose nothing, even if other users own files of the folder",
  { skip: whyNoOrdinaryUser() ?? false },
  async (t) => {
    const user = installForOrdinaryUser();
    t.after(() => user.remove());
    const { seeds, steps: count } = walksOf({ seeds: [1, 2], steps: 16 });
    const all: Taken = new Map();
    for (const seed of seeds) {
      const folder = newFolder("theirs");
      // The way there is everybody's.
      const place = `${user.place}/${seed}`;
      fs.renameSync(folder, place);
      const world = new UserWorld(place, user);
      world.edit({ chance: new Chance(seed), note: () => undefined }, 25);
      const again = `CAIRN_FUZZ_SEED=${seed} CAIRN_FUZZ_STEPS=${count} node --test test/fuzz/ordinary-user.flow.test.ts`;
      const nothing = (): void => undefined;
      addTaken(all, await takeWalk({ world, steps: USER_STEPS, seed, count, check: nothing, end: nothing, again }));
    }
    t.diagnostic(shownTaken(all));
  },
);
