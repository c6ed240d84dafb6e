import { strict as assert } from "node:assert";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { describe, test } from "node:test";
import { CairnError } from "../../errors.ts";
import { sizesOf } from "./testing-sizes.ts";
import { FOLDER_KINDS, type FileKind, type Storage } from "./storage.ts";

function nameOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function coded(code: string): (error: unknown) => boolean {
  return (error) => error instanceof CairnError && error.code === code;
}

/** Saves a pack and a config; `root`, the folder of the storage's files, then has restic's layout, private modes and no other file. */
export async function assertLayout(storage: Storage, root: string): Promise<void> {
  const bytes = randomBytes(10);
  const name = nameOf(bytes);
  await storage.save("data", name, bytes);
  await storage.save("config", "config", bytes);
  const files = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  assert.deepEqual(files.map((entry) => relative(root, join(entry.parentPath, entry.name))).toSorted(), [
    "config",
    `data/${name.slice(0, 2)}/${name}`,
  ]);
  for (const { parentPath, name: file } of files) assert.equal(statSync(join(parentPath, file)).mode & 0o777, 0o600);
  assert.equal(statSync(join(root, "data", name.slice(0, 2))).mode & 0o777, 0o700);
  assert.equal(readdirSync(join(root, "data")).length, 256);
  assert.deepEqual(readdirSync(root).toSorted(), ["config", "data", "index", "keys", "locks", "snapshots"]);
}

/**
 * Tests the promises that every storage keeps. `make` returns an empty storage, which may use `folder`. `rootIn`
 * returns the folder of the storage's files, if it is on this machine.
 */
export function storageContract(
  label: string,
  make: (folder: string) => Storage | Promise<Storage>,
  rootIn = (folder: string): string => join(folder, "repo"),
): void {
  describe(`storage contract: ${label}`, () => {
    const within = async (run: (storage: Storage, folder: string) => Promise<void>): Promise<void> => {
      const folder = mkdtempSync(join(tmpdir(), "cairn-storage-"));
      try {
        await run(await make(folder), folder);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    };

    test("load returns a saved file, or the requested range of its bytes", async () => {
      await within(async (storage) => {
        for (const kind of FOLDER_KINDS) {
          for (const durable of [true, false]) {
            const bytes = randomBytes(5000);
            const name = nameOf(bytes);
            await storage.save(kind, name, bytes, { durable });
            assert.deepEqual(Buffer.from(await storage.load(kind, name)), bytes);
            assert.deepEqual(
              Buffer.from(await storage.load(kind, name, { offset: 100, length: 50 })),
              bytes.subarray(100, 150),
            );
            assert.equal((await storage.load(kind, name, { offset: 5000, length: 0 })).length, 0);
          }
        }
        await storage.sync(["data", "index"]);
        await storage.sync(["data"]);
      });
    });

    test("a not_found message names one file in the singular, for example `pack abababab`", async () => {
      await within(async (storage) => {
        const absent = "ab".repeat(32);
        const words = { keys: "key", locks: "lock", snapshots: "snapshot", index: "index", data: "pack" } as const;
        for (const [kind, word] of Object.entries(words) as [FileKind, string][]) {
          const message = new RegExp(`\\b${word} abababab\\b`);
          await assert.rejects(storage.load(kind, absent), { code: "not_found", message });
          await assert.rejects(storage.remove(kind, absent), { code: "not_found", message });
        }
      });
    });

    test("load throws damaged for a range beyond the end, and not_found for a missing file", async () => {
      await within(async (storage) => {
        const bytes = randomBytes(100);
        const name = nameOf(bytes);
        await storage.save("data", name, bytes);
        await assert.rejects(storage.load("data", name, { offset: 90, length: 11 }), coded("damaged"));
        const absent = nameOf(randomBytes(8));
        await assert.rejects(storage.load("data", absent), coded("not_found"));
        await assert.rejects(storage.load("config", "config"), coded("not_found"));
        await assert.rejects(storage.remove("index", absent), coded("not_found"));
        assert.equal(await storage.exists("data", absent), false);
        assert.equal(await storage.exists("data", name), true);
      });
    });

    test("list throws damaged if a folder other than locks is missing", async () => {
      await within(async (storage, folder) => {
        const lacking = async (kind: FileKind): Promise<void> => {
          if (!existsSync(join(rootIn(folder), kind))) return;
          rmSync(join(rootIn(folder), kind), { recursive: true });
          const message = new RegExp(`has no folder ${kind}$`);
          await assert.rejects(storage.list(kind), { code: "damaged", message });
        };
        await storage.save("config", "config", Buffer.from("cfg"));
        for (const kind of ["snapshots", "index", "data", "keys"] as const) await lacking(kind);
      });
    });

    test("list returns no locks if the folder locks is missing, as in a repository of rustic", async () => {
      await within(async (storage, folder) => {
        await storage.save("config", "config", Buffer.from("cfg"));
        rmSync(join(rootIn(folder), "locks"), { recursive: true, force: true });
        assert.deepEqual(await storage.list("locks"), []);
        const bytes = randomBytes(50);
        await storage.save("locks", nameOf(bytes), bytes);
        assert.deepEqual(sizesOf(await storage.list("locks")), [{ name: nameOf(bytes), size: 50 }]);
      });
    });

    test("list returns saved files with their sizes, and no removed files", async () => {
      await within(async (storage) => {
        const wanted = new Map<string, number>();
        for (let i = 0; i < 20; i++) {
          const bytes = randomBytes(10 + i);
          wanted.set(nameOf(bytes), bytes.length);
          await storage.save("data", nameOf(bytes), bytes, { durable: false });
        }
        assert.deepEqual(new Map((await storage.list("data")).map((f) => [f.name, f.size])), wanted);
        const [first] = wanted.keys();
        await storage.remove("data", first!);
        assert.equal((await storage.list("data")).length, 19);
        assert.deepEqual(await storage.list("index"), []);
      });
    });

    test("save throws already_exists for an existing config, but not for other existing files", async () => {
      await within(async (storage) => {
        assert.deepEqual(await storage.list("config"), []);
        await storage.save("config", "config", Buffer.from("one"));
        await assert.rejects(storage.save("config", "config", Buffer.from("two")), coded("already_exists"));
        assert.equal(Buffer.from(await storage.load("config", "config")).toString(), "one");
        assert.deepEqual(sizesOf(await storage.list("config")), [{ name: "config", size: 3 }]);
        const bytes = randomBytes(9);
        await storage.save("index", nameOf(bytes), bytes);
        await storage.save("index", nameOf(bytes), bytes);
      });
    });

    test("saveFile stores the temporary file's content and removes the temporary file", async () => {
      await within(async (storage, folder) => {
        for (const durable of [true, false]) {
          const bytes = randomBytes(70_000);
          const temporary = join(folder, `pack-${String(durable)}`);
          writeFileSync(temporary, bytes);
          await storage.saveFile("data", nameOf(bytes), temporary, { durable });
          assert.equal(existsSync(temporary), false);
          assert.deepEqual(Buffer.from(await storage.load("data", nameOf(bytes))), bytes);
        }
        await storage.sync(["data"]);
      });
    });

    test("save and saveFile accept a file that the storage already has", async () => {
      await within(async (storage, folder) => {
        const bytes = randomBytes(3000);
        const name = nameOf(bytes);
        for (const kind of ["data", "index"] as FileKind[]) {
          for (let i = 0; i < 2; i++) {
            await storage.save(kind, name, bytes);
            const temporary = join(folder, "again");
            writeFileSync(temporary, bytes);
            await storage.saveFile(kind, name, temporary);
            assert.equal(existsSync(temporary), false);
          }
          assert.deepEqual(sizesOf(await storage.list(kind)), [{ name, size: 3000 }]);
          assert.deepEqual(Buffer.from(await storage.load(kind, name)), bytes);
        }
      });
    });

    test("24 files can be saved, loaded and removed concurrently", async () => {
      await within(async (storage) => {
        const files = Array.from({ length: 24 }, (_, i) => randomBytes(1000 + i));
        await Promise.all(files.map((bytes) => storage.save("data", nameOf(bytes), bytes, { durable: false })));
        const parts = await Promise.all(
          files.map((bytes, i) => storage.load("data", nameOf(bytes), { offset: i, length: 900 })),
        );
        parts.forEach((part, i) => assert.deepEqual(Buffer.from(part), files[i]!.subarray(i, i + 900)));
        await Promise.all(files.slice(1).map((bytes) => storage.remove("data", nameOf(bytes))));
        assert.deepEqual(sizesOf(await storage.list("data")), [{ name: nameOf(files[0]!), size: 1000 }]);
      });
    });

    test("save and load throw invalid_id for a name that is not a digest", async () => {
      await within(async (storage) => {
        for (const name of ["../config", "", "AB".repeat(32), `${"a".repeat(63)}/`, "config"]) {
          await assert.rejects(async () => storage.save("data", name, Buffer.from("x")), coded("invalid_id"));
          await assert.rejects(async () => storage.load("data", name), coded("invalid_id"));
        }
      });
    });
  });
}
