import fs from "node:fs";
import path from "node:path";
import { after, describe } from "node:test";
import { JUICEFS_KINDS, makeJuicefs } from "../../test/fixtures/juicefs.ts";
import { holderContract } from "./holder.contract.ts";
import { juicefsHolder } from "./juicefs-holder.ts";

for (const kind of JUICEFS_KINDS) {
  const made = makeJuicefs(kind);
  void describe(`the JuiceFS holder (${kind})`, { skip: "reason" in made ? made.reason : false }, () => {
    if ("reason" in made) return;
    after(() => made.close());
    let scenes = 0;
    holderContract(juicefsHolder({ program: path.join(made.programs, "juicefs") }), () => {
      const own = path.join(made.root, `scene-${scenes++}`);
      fs.mkdirSync(path.join(own, "root"), { recursive: true });
      return { root: path.join(own, "root"), at: (name) => path.join(own, name) };
    });
  });
}
