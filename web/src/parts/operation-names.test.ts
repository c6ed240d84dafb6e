import assert from "node:assert/strict";
import { test } from "node:test";
import { doneName, operationName, pathsOf, undoToRedo } from "./operation-names.ts";

const named = (...paths: string[]): { path: string }[] => paths.map((path) => ({ path }));

test("an operation names neither the logs of a database nor the folders of its files", () => {
  const database = named("data/shop.db", "data/shop.db-journal", "data/shop.db-shm", "data/shop.db-wal");
  assert.deepEqual(pathsOf(database), ["data/shop.db"]);
  assert.deepEqual(pathsOf(named("src", "src/a", "src/b")), ["src/a", "src/b"]);
  assert.deepEqual(pathsOf(named("src", "src-wal", "b-wal")), ["src", "b-wal"]);
});

test("an adoption with paths is a merge", () => {
  assert.equal(operationName({ kind: "adopt", paths: named("a"), cause: null }), "Merge");
  assert.equal(operationName({ kind: "adopt", paths: null, cause: null }), "Adoption");
  assert.equal(doneName({ kind: "adopt", paths: named("a"), cause: null }), "Merged");
  assert.equal(doneName({ kind: "adopt", paths: null, cause: null }), "Adopted");
  assert.equal(
    doneName({ kind: "rewind", paths: named("a"), cause: { kind: "rewind", in_part: true } }),
    "Took back a turn",
  );
});

test("the undo that a redo takes back is the last one that none has taken back", () => {
  const at = (...kinds: ("restore" | "undo" | "redo")[]): number =>
    ((all) => all.indexOf(undoToRedo(all)!))(kinds.map((kind) => ({ kind })).toReversed());
  assert.equal(at("restore", "undo"), 0);
  assert.equal(at("restore", "restore", "undo", "undo", "redo"), 2);
  assert.equal(at("restore", "undo", "redo"), -1);
  assert.equal(at("restore", "undo", "restore"), -1);
});
