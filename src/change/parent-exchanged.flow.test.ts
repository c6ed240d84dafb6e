import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { testFolder } from "../keep/testing-folder.ts";

const ENTRY = fileURLToPath(new URL("../cli/program/entry.ts", import.meta.url));
const HOSTILE = 4000;
const ONLY_ROOT = process.geteuid?.() === 0 ? false : "only root works in folders of others";

interface Exchanged {
  /** Runs a command, and at a failpoint has the hostile user exchange the workspace's parent for a link; its exit status. */
  at: (failpoint: string, args: readonly string[]) => Promise<number | null>;
  /** What there is in the folder that the link leads to, with owner, mode and times. */
  victim: () => unknown;
  work: string;
}

/** A workspace in a folder of another user, and a folder of the same name that is nobody's business. */
async function hostileParent(
  t: TestContext,
): Promise<Exchanged & Pick<Awaited<ReturnType<typeof testFolder>>, "library">> {
  const { root, library } = await testFolder(t);
  fs.chmodSync(root, 0o755);
  const [parent, aside, other] = [join(root, "h/p"), join(root, "h/q"), join(root, "v")];
  const work = join(parent, "main");
  for (const each of [work, join(other, "main")]) fs.mkdirSync(each, { recursive: true });
  fs.writeFileSync(join(other, "main/system"), "system");
  fs.writeFileSync(join(work, "kept"), "kept");
  for (const each of ["h", "h/p", "h/p/main", "h/p/main/kept"]) fs.lchownSync(join(root, each), HOSTILE, HOSTILE);
  const gate = join(root, "gate");
  const looked = (place: string): unknown => {
    const { uid, gid, mode, mtimeMs, ctimeMs } = fs.lstatSync(place);
    return [place, uid, gid, mode, mtimeMs, ctimeMs];
  };
  return {
    library,
    work,
    victim: () => [
      looked(other),
      ...fs.readdirSync(other, { recursive: true }).map((name) => looked(join(other, String(name)))),
    ],
    async at(failpoint, args) {
      fs.writeFileSync(gate, "");
      const env = { ...process.env, CAIRN_FAILPOINT: `${failpoint}@${gate}` };
      const child = spawn(process.execPath, [ENTRY, ...args], { env, stdio: ["ignore", "ignore", "pipe"] });
      const ended = once(child, "exit");
      const stopped = new Promise((resolve) =>
        child.stderr.on("data", (said: Buffer) => void (said.includes("failpoint ") && resolve(true))),
      );
      assert.equal(await Promise.race([stopped, ended.then(() => false)]), true, `${failpoint} was not reached`);
      fs.renameSync(parent, aside);
      fs.symlinkSync(other, parent);
      fs.lchownSync(parent, HOSTILE, HOSTILE);
      fs.rmSync(gate);
      const [status] = (await ended) as [number | null];
      fs.rmSync(parent);
      fs.renameSync(aside, parent);
      return status;
    },
  };
}

test(
  "a restore changes nothing outside the folder if a parent folder is replaced by a link meanwhile",
  { skip: ONLY_ROOT },
  async (t) => {
    const { library, work, at, victim } = await hostileParent(t);
    const client = await library.init(work);
    fs.writeFileSync(join(work, "evil.sh"), "evil");
    const { save_point_id: id } = await client.save();
    const before = victim();
    for (const failpoint of [
      "point-claimed",
      "restore.intent",
      "restore.staging-made",
      "restore.staged",
      "restore.committed",
      "restore.swapped",
    ]) {
      fs.rmSync(join(work, "evil.sh"), { force: true });
      fs.writeFileSync(join(work, "new"), failpoint);
      assert.equal(await at(failpoint, ["-C", work, "restore", id]), 4, failpoint);
      assert.deepEqual(victim(), before, failpoint);
      await client.restore({ target: id });
      assert.deepEqual(fs.readdirSync(work).toSorted(), ["evil.sh", "kept"], failpoint);
    }
  },
);

test(
  "a restore with --to changes nothing outside the target if a parent folder is replaced by a link meanwhile",
  { skip: ONLY_ROOT },
  async (t) => {
    const { library, work, at, victim } = await hostileParent(t);
    const client = await library.init(work);
    const { save_point_id: id } = await client.save();
    const before = victim();
    for (const failpoint of ["partial.recorded", "partial.made", "write.content-written"]) {
      const to = join(work, "../new");
      assert.notEqual(await at(failpoint, ["-C", work, "restore", id, "--to", to]), 0, failpoint);
      assert.deepEqual(victim(), before, failpoint);
      assert.equal(fs.existsSync(to), false, failpoint);
    }
  },
);
