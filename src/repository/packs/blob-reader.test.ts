import assert from "node:assert/strict";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { CairnError } from "../../errors.ts";
import { newArena } from "../../native.ts";
import { BlobDecoder } from "./blob-decoder.ts";
import { BlobReader } from "./blob-reader.ts";
import { readPackHeader } from "./pack-read.ts";
import { PackVerifier } from "../verify/pack-verifier.ts";
import { addBlob, noiseBlob, testPacks, textBlob } from "../testing-packs.ts";
import type { NamedPlace, TestPacks } from "../testing-packs.ts";

function fillPacks(scratch: TestPacks, plains: readonly Buffer[]): NamedPlace[] {
  const writer = scratch.writer();
  for (const plain of plains) addBlob(writer, plain);
  writer.finish();
  return scratch.places();
}

const MIXED = [
  textBlob(1, 3000),
  noiseBlob(1, 3000),
  textBlob(2, 700_000),
  noiseBlob(2, 1_500_000),
  textBlob(3, 3_000_000),
  textBlob(4, 10),
];

function verifyFile(scratch: TestPacks, path: string, size: number) {
  const descriptor = openSync(path, "r");
  try {
    const healthy: string[] = [];
    const problems = new PackVerifier(scratch.keys).verify({
      descriptor,
      size,
      id: scratch.packs[0]!.id,
      onBlob: (blob, arena, offset, length) =>
        void healthy.push(`${Buffer.from(blob.id).toString("hex")}:${arena.bytes[offset]}:${length}`),
    });
    return { problems, healthy };
  } finally {
    closeSync(descriptor);
  }
}

test("BlobReader's view and readWindow return the stored content", () => {
  using scratch = testPacks();
  const places = fillPacks(scratch, MIXED);
  const reader = scratch.reader();
  for (const [index, place] of places.entries()) {
    assert.ok(MIXED[index]!.equals(reader.view(place)));
  }
  const seen: number[] = [];
  reader.readWindow(places, (index, arena, offset, length) => {
    seen.push(index);
    assert.ok(MIXED[index]!.equals(arena.bytes.subarray(offset, offset + length)));
  });
  assert.deepEqual(seen, [0, 1, 2, 3, 4, 5]);
  reader.close();
});

test("BlobReader.readWindow reads blobs that are far apart in a pack, and the same blob twice", () => {
  using scratch = testPacks();
  const plains = Array.from({ length: 600 }, (_, number) => noiseBlob(number, 1000 + number * 10));
  const places = fillPacks(scratch, plains);
  const chosen = [0, 1, 5, 5, 60, 61, 62, 300, 599, 599];
  const reader = scratch.reader();
  const seen: number[] = [];
  reader.readWindow(
    chosen.map((number) => places[number]!),
    (index, arena, offset, length) => {
      seen.push(index);
      assert.ok(plains[chosen[index]!]!.equals(arena.bytes.subarray(offset, offset + length)));
    },
  );
  assert.deepEqual(seen, [...chosen.keys()]);
  reader.close();
});

test("BlobReader throws damaged for an impossible place before it allocates memory", () => {
  using scratch = testPacks();
  const [place] = fillPacks(scratch, [textBlob(1, 1000)]);
  const reader = scratch.reader();
  for (const wrong of [
    { length: 0 },
    { length: 32 },
    { length: 0xffff_ffff },
    { length: -5 },
    { offset: -1 },
    { offset: 2 ** 50 },
    { length: Number.NaN },
    { uncompressedLength: 0xffff_ffff },
  ]) {
    assert.throws(() => reader.view({ ...place!, ...wrong }), { code: "damaged" }, JSON.stringify(wrong));
    assert.throws(
      () => reader.readWindow([{ ...place!, ...wrong }], () => assert.fail("gave a blob")),
      { code: "damaged" },
      JSON.stringify(wrong),
    );
  }
  reader.close();
});

test("BlobReader names the pack, blob and offset of a damaged blob, and readWindow reads the other blobs", () => {
  using scratch = testPacks();
  const places = fillPacks(scratch, [textBlob(1, 1000), textBlob(2, 1000), textBlob(3, 1000)]);
  const [pack] = scratch.packs;
  const file = readFileSync(pack!.path);
  const at = places[1]!.offset + 20;
  file[at] = file[at]! ^ 1;
  writeFileSync(pack!.path, file);
  const reader = scratch.reader();
  assert.throws(
    () => reader.view(places[1]!),
    (error: unknown) => {
      assert.ok(error instanceof CairnError);
      assert.equal(error.code, "damaged");
      assert.equal(error.details?.["pack"], Buffer.from(pack!.id).toString("hex"));
      assert.equal(error.details?.["blob"], Buffer.from(places[1]!.id).toString("hex"));
      assert.equal(error.details?.["offset"], places[1]!.offset);
      return true;
    },
  );
  const good: number[] = [];
  const bad: number[] = [];
  reader.readWindow(
    places,
    (index) => void good.push(index),
    (index) => void bad.push(index),
  );
  assert.deepEqual([good, bad], [[0, 2], [1]]);
  assert.throws(() => reader.readWindow(places, () => undefined), { code: "damaged" });
  reader.close();
});

test("BlobReader throws damaged if a blob does not match its id, unless isComparedLater is set", () => {
  using scratch = testPacks();
  const [place] = fillPacks(scratch, [textBlob(1, 1000)]);
  const other = { ...place!, id: new Uint8Array(32) };
  assert.throws(() => scratch.reader().view(other), { code: "damaged" });
  const later = { ...other, isComparedLater: true };
  const seen: number[] = [];
  scratch.reader().readWindow([later], (_index, _arena, _offset, length) => void seen.push(length));
  assert.deepEqual([scratch.reader().view(later).length, seen], [1000, [1000]]);
});

test("BlobReader keeps at most 66 packs open, and close() closes all of them", () => {
  using scratch = testPacks();
  for (let number = 0; number < 80; number++) {
    const writer = scratch.writer();
    addBlob(writer, textBlob(number, 50));
    writer.finish();
  }
  const opened: number[] = [];
  const paths = new Map(scratch.packs.map((pack) => [Buffer.from(pack.id).toString("hex"), pack.path]));
  const reader = new BlobReader({
    keys: scratch.keys,
    openPack(name) {
      const descriptor = openSync(paths.get(name)!, "r");
      opened.push(descriptor);
      return descriptor;
    },
  });
  const places = scratch.places();
  for (const place of [...places, ...places.slice(40)]) reader.view(place);
  assert.equal(opened.length, 80);
  assert.ok(new Set(opened).size <= 66);
  reader.close();
  reader.view(places[0]!);
  assert.equal(opened.length, 81);
  reader.close();
});

test("PackVerifier finds no problems in a sound pack and calls onBlob for every blob", () => {
  using scratch = testPacks();
  fillPacks(scratch, MIXED);
  const [pack] = scratch.packs;
  const { problems, healthy } = verifyFile(scratch, pack!.path, pack!.size);
  assert.deepEqual(problems, []);
  assert.equal(healthy.length, MIXED.length);
});

test("PackVerifier names the blob or the header that contains a changed byte", () => {
  using scratch = testPacks();
  const places = fillPacks(scratch, [textBlob(1, 200), noiseBlob(2, 20), textBlob(3, 300)]);
  const [pack] = scratch.packs;
  const original = readFileSync(pack!.path);
  const path = join(scratch.directory, "flipped");
  for (let at = 0; at < original.length; at++) {
    const file = Buffer.from(original);
    file[at] = file[at]! ^ (1 << (at % 8));
    writeFileSync(path, file);
    const { problems, healthy } = verifyFile(scratch, path, file.length);
    assert.equal(problems[0]?.kind, "name");
    const hit = places.findIndex(({ offset, length }) => at >= offset && at < offset + length);
    if (hit >= 0) {
      assert.deepEqual(
        problems.slice(1).map(({ kind, blob }) => [kind, blob?.offset]),
        [["blob", places[hit]!.offset]],
        `byte ${at}`,
      );
      assert.equal(healthy.length, 2);
    } else {
      assert.equal(problems[1]?.kind, "header", `byte ${at}`);
      assert.equal(healthy.length, 0);
    }
  }
});

test("PackVerifier finds every truncation of a pack, also if the file is shorter than the stated size", () => {
  using scratch = testPacks();
  fillPacks(scratch, [textBlob(1, 200), noiseBlob(2, 20)]);
  const [pack] = scratch.packs;
  const original = readFileSync(pack!.path);
  const path = join(scratch.directory, "cut");
  for (let length = 0; length < original.length; length += 3) {
    writeFileSync(path, original.subarray(0, length));
    for (const size of [length, original.length]) {
      const kinds = verifyFile(scratch, path, size).problems.map(({ kind }) => kind);
      assert.ok(kinds.includes("name") && kinds.length > 1, `${length} of ${size}: ${kinds.join()}`);
    }
  }
});

test("readPackHeader throws damaged for a header that was encrypted with other keys", () => {
  using scratch = testPacks();
  using other = testPacks();
  fillPacks(scratch, [textBlob(1, 200)]);
  const [pack] = scratch.packs;
  const descriptor = openSync(pack!.path, "r");
  assert.throws(() => readPackHeader(descriptor, pack!.size, other.keys), { code: "damaged" });
  assert.equal(readPackHeader(descriptor, pack!.size, scratch.keys).blobs.length, 1);
  closeSync(descriptor);
});

/** Run in a process without native calls: checks the pack in argv, then writes one of its own. */

test("BlobReader.view throws damaged for a blob with a false size of 1 GiB, without allocating that memory", () => {
  using scratch = testPacks();
  const places = fillPacks(scratch, MIXED);
  const reader = scratch.reader();
  const taken = (): number => process.memoryUsage().arrayBuffers;
  const before = taken();
  const most = 1024 * 1024 * 1024;
  const { offset, pack, id } = places[2]!;
  for (const [place, reason] of [
    [{ ...places[0]!, uncompressedLength: most }, /does not decompress/],
    [{ ...places[2]!, uncompressedLength: most }, /does not decompress/],
    [{ offset, pack, id, length: most, uncompressedLength: most }, /ends before the blob does/],
    [{ offset, pack, id, length: most, uncompressedLength: 0 }, /ends before the blob does/],
  ] as const)
    assert.throws(() => reader.view(place), { code: "damaged", message: reason });
  assert.ok(taken() - before < 64 * 1024 * 1024);
  assert.ok(MIXED[2]!.equals(reader.view(places[2]!)));
  reader.close();
});

test("BlobReader.handOver returns the memory of a large blob instead of a copy", () => {
  using scratch = testPacks();
  const large = textBlob(7, 20_000_000);
  const [place, small] = fillPacks(scratch, [large, MIXED[0]!]) as [NamedPlace, NamedPlace];
  const reader = scratch.reader();
  reader.view(place);
  const own = reader.handOver()!;
  assert.equal(reader.handOver(), null);
  assert.ok(MIXED[0]!.equals(reader.view(small)));
  assert.equal(reader.handOver(), null, "what is small is copied");
  assert.ok(large.equals(own));
  reader.close();
  const [file] = scratch.packs;
  const sealed = newArena(file!.size);
  const pristine = readFileSync(file!.path);
  const problemOf = (wrong: Partial<NamedPlace>, cut = 0): string | null => {
    sealed.bytes.set(pristine);
    const decoder = new BlobDecoder(scratch.keys);
    const problem = decoder.proofProblem(
      sealed,
      place.offset,
      { ...place, length: place.length - cut, ...wrong },
      wrong.id ?? place.id,
    );
    if (problem === null) assert.ok(decoder.arena.bytes.length < 2_000_000);
    return problem;
  };
  assert.equal(problemOf({}), null);
  assert.match(problemOf({ id: small.id })!, /does not match its SHA-256/);
  for (const length of [large.length - 1, large.length + 1])
    assert.match(problemOf({ uncompressedLength: length })!, /stated length/);
  assert.match(problemOf({}, 1000)!, /stated length/);
});

test("BlobReader.pieces reads a large blob in parts of at most 1 MiB, and throws if its id is wrong", () => {
  using scratch = testPacks();
  const large = textBlob(7, 20_000_000);
  const [place, small] = fillPacks(scratch, [large, MIXED[0]!]) as [NamedPlace, NamedPlace];
  const reader = scratch.reader();
  const lengths: number[] = [];
  const all = Array.from(reader.pieces(place), (piece) => (lengths.push(piece.length), Buffer.from(piece)));
  assert.ok(large.equals(Buffer.concat(all)));
  assert.ok(Math.max(...lengths) <= 1024 * 1024);
  assert.equal(reader.handOver(), null, "none of it is held");
  assert.throws(() => reader.pieces({ ...place, id: small.id }), /does not match its SHA-256/);
  assert.throws(() => reader.pieces({ ...place, uncompressedLength: 2 ** 30 }), /stated length/);
  assert.ok(MIXED[0]!.equals(Buffer.concat([...reader.pieces(small)])));
  reader.close();
});
