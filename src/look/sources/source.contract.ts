import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import type { Client, LookOptions } from "../../contract/index.ts";
import { sha256 } from "../../crypto/hash.ts";
import { hex, joinPath, latin1 } from "../../formats/bytes.ts";
import { linkedInode, type TreeNode } from "../../formats/restic/tree.ts";
import type { Hand } from "../../keep/hand.ts";
import { hasCode } from "../../keep/testing-folder.ts";
import type { CairnClient } from "../../verbs/client.ts";
import { diff } from "../../verbs/looking/diff.ts";
import type { Difference } from "../../workspace/points/tree-diff.ts";
import { setAttribute } from "../../workspace/store/testing-edits.ts";
import { meantBy, withSources } from "./operands.ts";
import { below, differencesBetween, entryIn, type FileAt, type Source, wholeOf } from "./source.ts";

/** A workspace, and one state of a folder that has been filled by `fillSource`. */
export interface SourceScene {
  client: Client;
  /** The folder, which is still in that state. */
  folder: string;
  /** The operand that means the folder now. */
  now: string;
  /** The operand that means the state. */
  operand: string;
  options?: LookOptions;
}

const NOTHING = new Uint8Array(0);
const DEEP = Buffer.from("deep");
/** Name of a folder; one of its bytes is not UTF-8. */
const ODD = Buffer.from([0x6f, 0xff, 0x64]);
/** Bytes of a file of several blobs. */
const LARGE = 3 << 20;
const LINES = "two\nlines";

/** Fills a folder with names, kinds and sizes of entries that sources easily answer differently. */
export function fillSource(folder: string): void {
  const at = (name: string | Buffer): Buffer => joinPath(Buffer.from(folder), Buffer.from(name));
  for (const name of ["deep", "deep/er", "none"]) fs.mkdirSync(at(name));
  fs.mkdirSync(at(ODD));
  fs.writeFileSync(joinPath(at(ODD), ODD), "not UTF-8\n");
  fs.writeFileSync(at(LINES), "a name of two lines\n");
  fs.writeFileSync(at("deep/er/bottom"), "bottom\n");
  fs.writeFileSync(at("deep/large"), manyBytes(LARGE));
  fs.writeFileSync(at("deep/empty"), "");
  fs.writeFileSync(at("one"), "three names\n");
  fs.linkSync(at("one"), at("deep/two"));
  fs.linkSync(at("one"), joinPath(at(ODD), Buffer.from("three")));
  fs.symlinkSync(ODD, at("link"));
  // Names of which one begins like the other sort by bytes, folders too.
  for (const name of ["deep.", "deep-", "deep0"]) fs.writeFileSync(at(name), name);
  for (let i = 0; i < 40; i++) fs.writeFileSync(at(`none-${i}`), `file ${i}\n`.repeat(i));
  setAttribute(path.join(folder, "one"), "user.note", "noted");
  fs.chmodSync(at("deep/er"), 0o2750);
  fs.utimesSync(at("deep/er"), 1_500_000_000, 1_500_000_000.25);
}

/** Bytes that are cut into several blobs, and no two of them alike. */
function manyBytes(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0, value = 1; i < length; i += 4)
    bytes.writeInt32LE((value = (Math.imul(value, 1_103_515_245) + 12_345) | 0), i);
  return bytes;
}

/**
 * Tests the answers that all sources share. `make` returns a scene; null if this machine has none, and it has then
 * skipped the test.
 */
export function sourceContract(label: string, make: (t: TestContext) => Promise<SourceScene | null>): void {
  void test(`source contract: ${label}`, async (t) => {
    const scene = await make(t);
    if (scene === null) return;
    for (const [name, clause] of Object.entries(CLAUSES)) await t.test(name, async () => clause(scene));
    if (scene.operand !== scene.now)
      await t.test("a state differs from the folder once the folder has changed", async () =>
        differsOnceChanged(scene),
      );
  });
}

const CLAUSES: Readonly<Record<string, (scene: SourceScene) => Promise<void>>> = {
  "list has each folder's entries in the order of their bytes, once its trees are brought": async (scene) => {
    await withState(scene, async (source) => {
      await source.bring([source.root], true);
      const listed = new Map<string, string>();
      for (const { path: at, node } of walk(source)) listed.set(latin1(at), shownNode(node));
      assert.deepEqual([...listed], onDisk(scene.folder));
    });
  },

  "nodes lists a folder whose tree was not brought, and bring fetches one tree without those below": async (scene) => {
    await withState(scene, async (source) => {
      const names = [...(await source.nodes(source.root))].map(({ name }) => latin1(name));
      await source.bring([source.root], false);
      assert.deepEqual(
        [...source.list(source.root)].map(({ name }) => latin1(name)),
        names,
      );
      const [deep] = [...source.list(source.root)].filter(({ name }) => Buffer.compare(name, DEEP) === 0);
      const inDeep = [...(await source.nodes(deep!.subtree!))].map(({ name }) => latin1(name));
      assert.deepEqual(inDeep, ["empty", "er", "large", "two"]);
    });
  },

  "entryIn finds an entry by its raw path, and nothing below a file": async (scene) => {
    await withState(scene, async (source) => {
      const found = async (at: string | Buffer): Promise<string | undefined> =>
        (await entryIn(source, Buffer.from(at)))?.type;
      assert.equal(await found(LINES), "file");
      assert.equal(await found(ODD), "dir");
      assert.equal(await found(joinPath(ODD, ODD)), "file");
      assert.equal(await found("link"), "symlink");
      assert.equal(await found("none"), "dir");
      for (const absent of ["nowhere", "one/x", "none/x", "link/x", "Deep"])
        assert.equal(await found(absent), undefined, absent);
    });
  },

  "contents yields the bytes of files in the order in which they are asked for, and stops when the caller does": async (
    scene,
  ) => {
    await withState(scene, async (source) => {
      await source.bring([source.root], true);
      const files = walk(source).filter(({ node }) => node.type === "file");
      for (const asked of [files, files.toReversed()]) {
        const read: Buffer[] = [];
        for await (const content of source.contents(asked, undefined)) read.push(await joined(content));
        assert.equal(read.length, asked.length);
        for (const [i, file] of asked.entries())
          assert.ok(read[i]!.equals(fs.readFileSync(placeOf(scene.folder, file.path))), latin1(file.path));
      }
      const large = files.find((file) => latin1(file.path) === "deep/large")!;
      for await (const _piece of wholeOf(source, large, undefined)) break;
      await assert.rejects(joined(wholeOf(source, large, AbortSignal.abort())), hasCode("interrupted"));
      for await (const _content of source.contents([], undefined)) assert.fail("no file was asked for");
    });
  },

  "names of one file share an inode, and no other file has it": async (scene) => {
    await withState(scene, async (source) => {
      await source.bring([source.root], true);
      const groups = Map.groupBy(
        walk(source).filter(({ node }) => node.type === "file"),
        ({ node }) => linkedInode(node),
      );
      groups.delete(null);
      const [names, ...others] = [...groups.values()].map((group) => group.map((file) => latin1(file.path)));
      assert.deepEqual([names, others], [["deep/two", "one", latin1(joinPath(ODD, Buffer.from("three")))], []]);
    });
  },

  "raw, if a source has it, returns the bytes that a tree's id is the digest of": async (scene) => {
    await withState(scene, async (source) => {
      await source.bring([source.root], true);
      const trees = [source.root, ...walk(source).flatMap(({ node }) => node.subtree ?? [])];
      assert.equal(trees.length, 5);
      for (const tree of source.raw === undefined ? [] : trees) assert.equal(hex(sha256(source.raw!(tree))), hex(tree));
    });
  },

  "facts has the digests of files of several blobs and the values that trees cannot hold, as the folder's own facts have":
    async (scene) => {
      await withState(scene, async (source, folder) => {
        const expected = [`deep/large: ${hex(sha256(manyBytes(LARGE)))}`, `link: its linktarget is ${latin1(ODD)}`];
        for (const each of [source, folder]) {
          const { lossless, fileHashes, omitted } = await each.facts();
          const hashes = fileHashes.map((file) => `${latin1(file.path)}: ${hex(file.sha256)}`);
          const fields = lossless.map(
            (one) => `${latin1(one.path)}: its ${one.field} is ${latin1(one.value as Uint8Array)}`,
          );
          assert.deepEqual([...hashes, ...fields], expected);
          assert.deepEqual(omitted, []);
        }
      });
    },

  "a state does not differ from itself, nor from the folder that has not changed since": async (scene) => {
    const { operand, now } = scene;
    for (const pair of [
      [operand, operand],
      [operand, now],
      [now, operand],
    ])
      assert.deepEqual(await differences(scene, pair as [string, string]), [], pair.join(" and "));
  },

  "a folder in a state is a source: its root, its contents and its facts are the folder's": async (scene) => {
    const { operand, now, folder } = scene;
    await withSourcesOf(scene, [operand, now], DEEP, async ([source, other]) => {
      await source!.bring([source!.root], true);
      const entries = walk(source!);
      assert.deepEqual(
        entries.map((entry) => latin1(entry.path)),
        ["empty", "er", "er/bottom", "large", "two"],
      );
      const { fileHashes } = await source!.facts();
      assert.deepEqual(
        fileHashes.map((each) => latin1(each.path)),
        ["large"],
      );
      for (const file of entries.filter(({ node }) => node.type === "file"))
        assert.ok(
          (await joined(wholeOf(source!, file, undefined))).equals(
            fs.readFileSync(path.join(folder, "deep", latin1(file.path))),
          ),
        );
      assert.deepEqual((await differencesBetween(source!, other!, undefined)).all, []);
      const inside = below(source!, Buffer.from("er"), operand);
      assert.deepEqual(
        [...(await inside.nodes(inside.root))].map(({ name }) => latin1(name)),
        ["bottom"],
      );
    });
    await withSourcesOf(scene, [operand], ODD, async ([source]) => {
      const names = [...(await source!.nodes(source!.root))].map(({ name }) => latin1(name));
      assert.deepEqual(names, [latin1(ODD), "three"]);
    });
    for (const [at, code] of [
      ["nowhere", "not_found"],
      ["one", "conflict"],
    ] as const)
      await assert.rejects(
        withSourcesOf(scene, [operand], Buffer.from(at), async () => undefined),
        hasCode(code),
        at,
      );
  },
};

/** The last clause, because it changes the folder. */
async function differsOnceChanged(scene: SourceScene): Promise<void> {
  const { operand, now, folder } = scene;
  const at = (name: string): string => path.join(folder, name);
  fs.writeFileSync(at("deep/large"), Buffer.concat([manyBytes(2 << 20), Buffer.alloc(1 << 20, "other")]));
  fs.writeFileSync(at(LINES), "a name of more lines\n");
  fs.rmSync(at("deep."));
  fs.writeFileSync(at("none/new"), "new\n");
  fs.chmodSync(at("deep/er"), 0o700);
  const changed = ["removed deep.", "content deep/large", "mode deep/er", "added none/new", `content ${LINES}`];
  const there = await differences(scene, [operand, now]);
  assert.deepEqual(there.filter((each) => !each.startsWith("times ")).toSorted(), changed.toSorted());
  const back = await differences(scene, [now, operand]);
  const turned = there.map((each) => each.replace(/^(?:added|removed)/, (word) => OTHER[word]!));
  assert.deepEqual(back.toSorted(), turned.toSorted());
}

const OTHER: Readonly<Record<string, string>> = { added: "removed", removed: "added" };

/** Lists the differences of two states, one a line and aspect; folders differ in their times, too. */
async function differences(scene: SourceScene, pair: [string, string]): Promise<string[]> {
  const found: string[] = [];
  await withSourcesOf(scene, pair, NOTHING, async ([before, after]) => {
    const { all, unread } = await differencesBetween(before!, after!, undefined);
    assert.deepEqual(unread, []);
    for (const each of all) found.push(...aspectsOf(each).map((aspect) => `${aspect} ${latin1(each.path)}`));
  });
  return found;
}

function aspectsOf({ before, after, aspects }: Difference): readonly string[] {
  if (before === null) return ["added"];
  return after === null ? ["removed"] : aspects;
}

async function withState(scene: SourceScene, work: (source: Source, folder: Source) => Promise<void>): Promise<void> {
  await withSourcesOf(scene, [scene.operand, scene.now], NOTHING, async ([source, folder]) => work(source!, folder!));
}

/** Opens the entry at `below` in each of the states that operands mean. */
async function withSourcesOf(
  { client, options = {} }: SourceScene,
  operands: readonly string[],
  below: Uint8Array,
  work: (sources: readonly Source[]) => Promise<void>,
): Promise<void> {
  const run = async (hand: Hand): Promise<void> => {
    const meant = operands.map((operand) => ({ ...meantBy(hand.workspace, operand), path: below }));
    await withSources(hand, meant, options, async (opened) => work(opened.map(({ source }) => source)));
  };
  await (client as CairnClient).perform({ ...diff, run }, [options]);
}

/** Lists all entries, folders before their entries. */
function walk(source: Source): FileAt[] {
  const found: FileAt[] = [];
  const into = (directory: Uint8Array, above: Uint8Array): void => {
    for (const node of source.list(directory)) {
      const at = above.length === 0 ? node.name : joinPath(above, node.name);
      found.push({ path: Uint8Array.from(at), node });
      if (node.subtree !== undefined) into(node.subtree, at);
    }
  };
  into(source.root, NOTHING);
  return found;
}

function shownNode({ type, mode, size, mtimeSec, linktarget }: TreeNode): string {
  const own = { file: ` ${size}`, symlink: ` ${latin1(linktarget ?? NOTHING)}` }[type as "file"] ?? "";
  return `${type} ${mode.toString(8)} ${mtimeSec}${own}`;
}

/** Lists the entries of a folder as a walk of its source does, each with the line of `shownNode`. */
function onDisk(folder: string): [string, string][] {
  const found: [string, string][] = [];
  const into = (above: Buffer): void => {
    const names = fs.readdirSync(placeOf(folder, above), { encoding: "buffer" }).toSorted(Buffer.compare);
    for (const name of names) {
      const at = above.length === 0 ? name : joinPath(above, name);
      const place = placeOf(folder, at);
      const stat = fs.lstatSync(place);
      const type = stat.isDirectory() ? "dir" : stat.isSymbolicLink() ? "symlink" : "file";
      const linktarget = type === "symlink" ? fs.readlinkSync(place, { encoding: "buffer" }) : NOTHING;
      const node = { type, mode: stat.mode & 0o7777, size: stat.size, mtimeSec: Math.floor(stat.mtimeMs / 1000) };
      found.push([latin1(at), shownNode({ ...node, linktarget } as TreeNode)]);
      if (type === "dir") into(at);
    }
  };
  into(Buffer.alloc(0));
  return found;
}

function placeOf(folder: string, at: Uint8Array): Buffer {
  return joinPath(Buffer.from(folder), at);
}

async function joined(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Buffer[] = [];
  for await (const piece of pieces) all.push(Buffer.from(piece));
  return Buffer.concat(all);
}
