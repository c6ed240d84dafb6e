import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, describe, test, type TestContext } from "node:test";
import { HalfWriter, makeHalfWritten } from "../../../test/fixtures/half-writer.ts";
import { makeLoopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { LiveDatabases } from "../../capture/sqlite/live-databases.ts";
import { valuesOf } from "../../capture/sqlite/testing-half-transaction.ts";
import { btrfsHolder } from "../../clones/btrfs-holder.ts";
import type { TreeHolder } from "../../clones/holder.ts";
import { recordPath } from "../../formats/records/record.ts";
import { makeSubvolume } from "../../fs/linux/btrfs.ts";
import type { Workspace } from "../open/workspace.ts";
import { type DescribedTree, withDatabases } from "./cloned-databases.ts";

/** Transactions without a journal that begin and end between the two looks at a database's locks. */

const made = makeLoopFileSystem("btrfs");
const skip = "reason" in made ? made.reason : false;
const volume = "reason" in made ? "" : made.root;
const holder = btrfsHolder();
const NOTHING_HELD = { still: async () => ({ held: [], release: async () => true }), close: async () => undefined };
let folders = 0;

interface Made extends DescribedTree {
  announced: number;
  captures: number;
  /** the numbers in the snapshot's database */
  values: string;
}

/** Makes a snapshot; `around` runs beside the first capture or, if so wanted, beside each. */
async function snapshot(
  t: TestContext,
  around: (database: string, capture: () => Promise<void>, turn: number) => Promise<void>,
  canHold: boolean,
): Promise<Made> {
  const own = path.join(volume, `test-${folders++}`);
  const [root, tree, temporary] = ["ws", "tree", "tmp"].map((name) => path.join(own, name)) as [string, string, string];
  fs.mkdirSync(own);
  await makeSubvolume(Buffer.from(root));
  const database = path.join(root, "app.db");
  makeHalfWritten(database).close();
  const databases = new LiveDatabases();
  t.after(() => databases.close());
  const labels = [{ ...recordPath(Buffer.from("app.db")), label: "transaction-consistent" }];
  const workspace = {
    root: Buffer.from(root),
    engine: { databases: canHold ? databases : NOTHING_HELD, seen: null },
    state: () => ({ head: "head" }),
    byId: () => ({ sealed: true, descriptor: { labels, content: {} } }),
  } as unknown as Workspace;
  let [announced, captures] = [0, 0];
  const watched: TreeHolder = {
    ...holder,
    async capture(...given) {
      let captured: Awaited<ReturnType<TreeHolder["capture"]>> | undefined;
      await around(database, async () => void (captured = await holder.capture(...given)), ++captures);
      return captured!;
    },
  };
  const from = workspace.root;
  const described = await withDatabases(
    workspace,
    { temporary },
    { holder: watched, from, tree, announce: () => announced++ },
  );
  const copy = path.join(own, "copy");
  fs.copyFileSync(path.join(tree, "app.db"), copy);
  return { ...described, announced, captures, values: valuesOf(copy) };
}

describe("a database that changes between two looks at its locks", { skip }, () => {
  after(() => {
    if (!("reason" in made)) made.close();
  });

  for (const mode of ["memory", "off"] as const) {
    test(`a snapshot with half of a transaction is taken again while the database is locked: ${mode}`, async (t) => {
      const written = await snapshot(
        t,
        async (database, capture, turn) => {
          const writer = turn === 1 ? await HalfWriter.start(t, database, mode) : null;
          await capture();
          await writer?.commit();
        },
        true,
      );
      assert.deepEqual([written.values, written.captures, written.labels, written.announced], ["1", 2, [], 0]);
      assert.deepEqual(written.still, [recordPath(Buffer.from("app.db"))]);
    });

    test(`a snapshot with half of a transaction is torn-possible if the database cannot be locked: ${mode}`, async (t) => {
      const written = await snapshot(
        t,
        async (database, capture) => {
          const writer = await HalfWriter.start(t, database, mode);
          await capture();
          await writer.commit();
        },
        false,
      );
      assert.notEqual(written.values.length, 1, written.values);
      assert.deepEqual(
        written.labels.map(({ label }) => label),
        ["torn-possible"],
      );
    });
  }

  test("an idle database costs one snapshot, which is announced", async (t) => {
    const written = await snapshot(
      t,
      async (database, capture) => {
        await new Promise((resolve) =>
          setTimeout(resolve, Math.max(0, fs.statSync(database).ctimeMs + 50 - Date.now())),
        );
        await capture();
      },
      true,
    );
    assert.deepEqual([written.values, written.captures, written.labels], ["0", 1, []]);
  });
});
