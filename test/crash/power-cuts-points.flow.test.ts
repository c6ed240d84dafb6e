import fs from "node:fs";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";
import { cutPower } from "./power-cuts.ts";

/** Commands that make and remove points; the power is cut at any time. */

cutPower("a power cut during a save leaves one complete point or none", async (live) => {
  makeFirst(live.folder);
  await live.save();
  makeSecond(live.folder);
  await live.save();
  makeUnsaved(live.folder);
  return {
    args: ["save", live.folder, "-m", "cut"],
    look: async () => {
      const { save_points: points } = await (await live.client()).history(undefined, 0, { all: true });
      return points.some(({ message }) => message === "cut");
    },
  };
});

cutPower("a power cut during a cleanup leaves all planned points or none of them", async (live) => {
  makeFirst(live.folder);
  const client = await live.client();
  for (let i = 0; i < 3; i++) {
    fs.writeFileSync(`${live.folder}/big`, `${i}\n`.repeat(5000));
    await client.save({ message: `${i}` });
  }
  makeSecond(live.folder);
  await live.save();
  return {
    args: ["cleanup", "--keep-last", "2", "-C", live.folder],
    // Points are moved away with one flush of the folder that they leave. A file system makes both ends of a rename durable.
    isOrdered: true,
    look: async () => {
      const { save_points: points } = await (await live.client()).history(undefined, 0, { all: true });
      return points.map(({ message }) => message).filter((message) => message !== "next");
    },
  };
});
