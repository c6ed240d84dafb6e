import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import type { TestContext } from "node:test";
import type { EngineClauses } from "../../../../test/fixtures/engine-clauses.ts";
import { assertFolder, readFolder } from "../../../../test/fixtures/folder-state.ts";
import { makeFirst, makeSecond } from "../../../../test/fixtures/two-states.ts";
import type { Holder } from "../../../contract/index.ts";
import { findHolders } from "../../../fs/linux/holders.ts";

const HOLDERS = [
  { what: "its working directory", script: 'cd "$1/same"; echo r; read line; pwd -P; cat kept.txt', at: "same" },
  { what: "a file open for reading", script: 'exec 3<"$1/same/kept.txt"; echo r; read line', at: "same/kept.txt" },
  {
    what: "a file open for writing",
    script: 'exec 3>>"$1/same/kept.txt"; echo r; read line; echo more >&3',
    at: "same/kept.txt",
    writes: true,
  },
];

/** A restore names processes that work in the folder, and leaves their open files alone. */
export function holderClauses({ clause, atomic }: EngineClauses): void {
  clause(
    "restore replaces single entries instead of the whole folder if a process uses the folder",
    async ({ client, folder }, t) => {
      const first = readFolder(folder);
      const { save_point_id: target } = await client.save();
      await client.seal();
      const ask = { target, ...(atomic ? { method: "exchange" as const } : {}) };
      for (const { what, script, at, writes } of HOLDERS) {
        makeSecond(folder);
        const { child, said, end } = await hold(t, script, folder);
        const kept = path.join(folder, "same/kept.txt");
        const inodes = (): number[] => [folder, kept].map((each) => fs.statSync(each).ino);
        const before = inodes();
        const named = findHolders(folder, { budgetMs: 60_000 }).holders.find(({ pid }) => pid === child.pid);
        assert.equal(named?.path.toString(), at, what);
        const own = { pid: child.pid, command: "sh", path: at };
        for (const look of [async () => client.status({ holders: true }), async () => client.planRestore({ target })])
          assert.deepEqual(await holdersSeen(look, writes === true), writes === true ? [own] : [], what);
        assert.equal((await client.status()).holders, null, "a plain status does not look for processes");
        const warnings: string[] = [];
        const onWarning = (message: string): number => warnings.push(message);
        const { method, left_out: left } = await client.restore({ ...ask, onWarning });
        assert.deepEqual([method, left], ["entries", []], what);
        if (atomic) assert.match(warnings.join(), new RegExp(`not by an exchange: process ${child.pid} \\(`), what);
        assert.deepEqual(inodes(), before, `${what}: what stays the same is the same`);
        assertFolder(folder, first, what);
        await end();
        if (at === "same") assert.equal(said(), `${folder}/same\nnever changes\n`);
        if (writes === true) assert.equal(fs.readFileSync(kept, "utf8"), "never changes\nmore\n");
        await client.restore({ target, method: "entries" });
      }
      assert.deepEqual((await client.status({ holders: true })).holders, []);
      makeSecond(folder);
      const identity = (): string => `${fs.statSync(folder).dev}:${fs.statSync(folder).ino}`;
      const was = identity();
      assert.equal((await client.restore(ask)).method, atomic ? "exchange" : "entries");
      assert.equal(identity() === was, !atomic, "an exchange puts another folder there");
      assertFolder(folder, first, "nobody in it");
    },
    { fill: makeFirst },
  );

  clause(
    "a point contains a file open for writing as of the save, and the next point contains the later writes",
    async ({ client, folder, volume }, t) => {
      const { end } = await hold(
        t,
        'exec 3>>"$1/same/kept.txt"; echo once >&3; echo r; read line; echo twice >&3',
        folder,
      );
      const held = await client.save();
      const before = readFolder(folder);
      await end();
      const now = readFolder(folder);
      const next = await client.save();
      await client.seal();
      for (const [point, wanted] of [
        [held, before],
        [next, now],
      ] as const) {
        assert.equal(point.complete, true);
        const to = path.join(volume.root, point.save_point_id);
        await client.restore({ target: point.save_point_id, to });
        assertFolder(to, wanted, "as it was saved");
      }
      assert.deepEqual((await client.verifyAll()).problems, []);
    },
    { fill: makeFirst },
  );
}

/** Returns the holders that a call reports. Calls again if there was no time to look at every process. */
async function holdersSeen(look: () => Promise<{ holders: Holder[] | null }>, isWanted: boolean): Promise<Holder[]> {
  for (let i = 0; i < 50; i++) {
    const holders = (await look()).holders ?? [];
    if (holders.length > 0 || !isWanted) return holders;
  }
  return [];
}

interface Held {
  child: ChildProcess;
  said(): string;
  end(): Promise<void>;
}

/** Starts a shell that prints `r` when it holds its file or folder, and goes on when `end` is called. */
async function hold(t: TestContext, script: string, folder: string): Promise<Held> {
  const child = spawn("sh", ["-c", script, "sh", folder], { stdio: ["pipe", "pipe", "inherit"] });
  t.after(() => child.kill());
  let said = "";
  child.stdout.on("data", (text: Buffer) => (said += text.toString()));
  await once(child.stdout, "data");
  const end = async (): Promise<void> => {
    child.stdin.end("\n");
    await once(child, "close");
  };
  return { child, said: () => said.slice("r\n".length), end };
}
