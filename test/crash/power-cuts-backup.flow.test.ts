import fs from "node:fs";
import { backUpAgain, checkedSnapshots, twoBackups, withRepository } from "./cut-repository.ts";
import { cutPower } from "./power-cuts.ts";

/** Commands that write and free packs of a repository; the power is cut at any time. */

cutPower("a power cut during backup create leaves all earlier snapshots, and a repeat makes it", async (live) => {
  const options = await twoBackups(live);
  fs.writeFileSync(`${live.folder}/more`, "more\n".repeat(3000));
  await live.save();
  return {
    args: ["backup", "create", ...options, "-C", live.folder],
    next: () => backUpAgain(live),
    look: () => checkedSnapshots(live),
    isRepeated: true,
    // A claim that was moved aside is removed by the next save.
    mayStay: /^\/cache\/|^\/repository\/(?:tmp|locks)\/|\/points\/\.cairn-tmp-/,
  };
});

cutPower("a power cut during backup prune leaves every snapshot whole", async (live) => {
  const options = await twoBackups(live);
  await withRepository(live, async (repository) => {
    const { snapshots } = await repository.list();
    await repository.forget({ snapshots: [snapshots[0]!.snapshot_id] });
  });
  return {
    args: ["backup", "prune", "--instant", ...options],
    next: () => backUpAgain(live),
    look: () => checkedSnapshots(live),
    isRepeated: true,
  };
});
