import fs from "node:fs";
import { cairnOk } from "../fixtures/command.ts";
import { cutPower } from "./power-cuts.ts";
import type { Live } from "./replay.ts";

/** Changes of a context store and exports of one; the power is cut at any time. */

function makeStore(live: Live): void {
  fs.mkdirSync(live.at("docs"));
  for (const name of ["a.md", "b.md"]) fs.writeFileSync(live.at("docs", name), `${name}\n`);
  cairnOk(["context", "init", live.at("store"), "--embedding", "none"], { own: true });
  cairnOk(["context", "add", "viking://resources/docs", live.at("docs"), "-C", live.at("store")], { own: true });
}

cutPower("a power cut during a bundle export leaves no bundle or a whole one", async (live) => {
  makeStore(live);
  const file = live.at("docs.ovpack");
  return {
    args: ["bundle", "export", "viking://resources/docs", file, "-C", live.at("store")],
    next: async () =>
      (await live.library()).exportBundle(live.at("store"), "viking://resources/docs", live.at("next.ovpack")),
    look: () => fs.existsSync(file),
    check: async (_, isAfter) => {
      if (isAfter) await (await live.library()).verifyBundle(file);
    },
  };
});

cutPower("a power cut during context rm removes all of the files or none", async (live) => {
  makeStore(live);
  fs.writeFileSync(live.at("tea.md"), "tea\n");
  cairnOk(["context", "add", "viking://user/u/memories/tea.md", live.at("tea.md"), "-C", live.at("store")], {
    own: true,
  });
  return {
    args: ["context", "rm", "viking://resources/docs", "-C", live.at("store")],
    next: async () => (await live.library()).removeFromContext(live.at("store"), "viking://user/u/memories/tea.md"),
    look: async () => {
      const { hits } = await (await live.library()).findInContext(live.at("store"), "a b", { limit: 50 });
      return hits.length;
    },
  };
});
