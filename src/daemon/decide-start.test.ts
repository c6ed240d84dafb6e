import assert from "node:assert/strict";
import { test } from "node:test";
import type { BackendType, DaemonState } from "../formats/records/daemon-state.ts";
import { type Decision, decideStart, type Refusal, stateOf } from "./decide-start.ts";
import type { DataRoot, ImageFacts, StartFacts } from "./start-facts.ts";

const ON_BTRFS: DataRoot = { path: "/data", isFolder: true, kind: "btrfs", uuid: "u" };
const ELSEWHERE: DataRoot = { path: "/data", isFolder: true, kind: "ext4", uuid: "e" };
const NOWHERE: DataRoot = { path: "/data", isFolder: false, kind: null, uuid: null };
const NO_IMAGE: ImageFacts = {
  path: "/state/btrfs.img",
  mount: "/state/btrfs",
  file: null,
  known: null,
  old: null,
  mounted: null,
  unfinished: null,
};
const IMAGE = { ...NO_IMAGE, file: { uuid: "i" } };
const OLD_IMAGE: ImageFacts = {
  ...IMAGE,
  known: { path: "/old.img", bytes: 1, last_device: null, mount: "/mnt/old" },
  old: { image: { path: "/old.img", bytes: 1, last_device: null, mount: "/mnt/old" }, workspaces: ["ws-1  /home/p"] },
};

function stateWith(type: BackendType, uuid: string | null = "u"): DaemonState {
  return {
    backend: { type, selection_method: "auto-detect", selected_at: "2026-01-01T00:00:00Z", filesystem_uuid: uuid },
    paths: { data_root: "/data", loop_image: null },
    workspaces: [],
    schedules: {},
  };
}

interface Row extends Partial<StartFacts> {
  configured?: BackendType;
  size?: number;
}

function decide({ configured, size, ...facts }: Row): Decision | Refusal {
  return decideStart({
    config: {
      backend: { type: configured ?? null, data_root: null },
      loop: { bytes: size ?? null, percent_of_disk: 50 },
      migrate: { state: null, data_root: null },
    },
    places: { state: "/state", config: "/config.toml" },
    isRoot: true,
    rebuild: false,
    state: null,
    lost: [],
    traces: [],
    dataRoot: null,
    controls: [],
    image: NO_IMAGE,
    foldersOnImage: 0,
    disk: { freeBytes: 100 * 2 ** 30, usedBytes: 0, totalBytes: 200 * 2 ** 30, freeInodes: null },
    missingPrograms: [],
    missingOld: [],
    isOldLeft: false,
    closed: null,
    ...facts,
  });
}

const LOST = { lost: ["/state/state.json"] };
const TRACES = { traces: ["the image /state/btrfs.img"] };

/** A row that is served: the word, the backend and the step of the image. A row that is refused: a part of its message. */
const ROWS: [row: string, facts: Row, expected: [word: string, type: string, step?: string] | string][] = [
  ["nothing", {}, ["first start", "plain"]],
  ["a data root on btrfs", { dataRoot: ON_BTRFS }, ["first start", "btrfs-base"]],
  ["a data root elsewhere", { dataRoot: ELSEWHERE }, "lies on ext4"],
  ["a data root that is missing", { dataRoot: NOWHERE }, "is not a folder"],
  ["plain, and a data root elsewhere", { configured: "plain", dataRoot: ELSEWHERE }, ["first start", "plain"]],
  ["btrfs-base without a data root", { configured: "btrfs-base" }, "data_root is not set"],
  ["btrfs-base elsewhere", { configured: "btrfs-base", dataRoot: ELSEWHERE }, "lies on ext4"],
  ["btrfs-base nowhere", { configured: "btrfs-base", dataRoot: NOWHERE }, "does not exist"],
  ["a new image", { configured: "btrfs-loop" }, ["first start", "btrfs-loop", "make"]],
  ["a new image, not as root", { configured: "btrfs-loop", isRoot: false }, "only root"],
  ["a new image without mkfs", { configured: "btrfs-loop", missingPrograms: ["mkfs.btrfs"] }, "mkfs.btrfs is not inst"],
  ["an image of 10 KiB", { configured: "btrfs-loop", size: 10 << 10 }, "too small"],
  [
    "an image on a full disk",
    {
      configured: "btrfs-loop",
      disk: { usedBytes: 0, freeInodes: null, freeBytes: 1 << 20, totalBytes: 2 ** 40 },
    },
    "too small",
  ],
  ["folders below the mount", { configured: "btrfs-loop", foldersOnImage: 2 }, "2 folders lie on it"],
  [
    "a foreign mount",
    { configured: "btrfs-loop", image: { ...NO_IMAGE, mounted: "tmpfs" } },
    "already a mount of tmpfs",
  ],
  [
    "an unfinished image",
    { configured: "btrfs-loop", image: { ...NO_IMAGE, unfinished: "x", mounted: "/state/btrfs.img.unfinished" } },
    ["first start", "btrfs-loop", "make"],
  ],
  [
    "an image that is no btrfs",
    { configured: "btrfs-loop", ...TRACES, image: { ...IMAGE, file: { uuid: null } } },
    "is not a btrfs",
  ],
  // What was chosen is neither detected anew nor exchanged when it is gone.
  ["plain stays", { state: stateWith("plain"), dataRoot: ON_BTRFS }, ["go on", "plain"]],
  ["btrfs-base stays", { state: stateWith("btrfs-base"), dataRoot: ON_BTRFS }, ["go on", "btrfs-base"]],
  [
    "btrfs-base without its UUID",
    { state: stateWith("btrfs-base", null), dataRoot: ON_BTRFS },
    ["go on", "btrfs-base"],
  ],
  ["btrfs-base elsewhere now", { state: stateWith("btrfs-base"), dataRoot: ELSEWHERE }, "lies on ext4"],
  ["btrfs-base nowhere now", { state: stateWith("btrfs-base"), dataRoot: NOWHERE }, "does not exist"],
  ["btrfs-base on another btrfs", { state: stateWith("btrfs-base", "v"), dataRoot: ON_BTRFS }, "lie on v"],
  ["btrfs-loop without an image", { state: stateWith("btrfs-loop") }, "names no other"],
  ["btrfs-loop without UUID and image", { state: stateWith("btrfs-loop", null), dataRoot: ON_BTRFS }, "names no other"],
  ["btrfs-loop, configured, without an image", { configured: "btrfs-loop", state: stateWith("btrfs-loop") }, "missing"],
  [
    "btrfs-loop with its image",
    { state: stateWith("btrfs-loop", "i"), image: IMAGE },
    ["go on", "btrfs-loop", "mount"],
  ],
  [
    "btrfs-loop with an image, without UUID",
    { state: stateWith("btrfs-loop", null), image: IMAGE },
    ["go on", "btrfs-loop", "mount"],
  ],
  ["btrfs-loop with another's image", { state: stateWith("btrfs-loop", "u"), image: IMAGE }, "lie on the image u"],
  [
    "an image that only lacks its name",
    { state: stateWith("btrfs-loop", "i"), image: { ...NO_IMAGE, unfinished: "i" } },
    ["go on", "btrfs-loop", "finish"],
  ],
  [
    "another unfinished image",
    { state: stateWith("btrfs-loop", "i"), image: { ...NO_IMAGE, unfinished: "x" } },
    "missing",
  ],
  [
    "from btrfs-base to an image",
    { configured: "btrfs-loop", state: stateWith("btrfs-base") },
    ["go on", "btrfs-loop", "make"],
  ],
  ["from btrfs-base to plain", { configured: "plain", state: stateWith("btrfs-base") }, ["go on", "plain"]],
  // A state that is lost, or is missing beside what it described.
  ["a lost state", LOST, "cannot be read"],
  ["a lost state beside its image", { ...LOST, ...TRACES, image: IMAGE }, "the image /state/btrfs.img"],
  ["a missing state beside its image", { ...TRACES, image: IMAGE }, "is missing, and so is the generation before it"],
  [
    "a missing state and a data root",
    { ...TRACES, dataRoot: ON_BTRFS },
    "is missing, and so is the generation before it",
  ],
  [
    "a lost state, and the image configured",
    { ...LOST, configured: "btrfs-loop", image: IMAGE },
    ["go on", "btrfs-loop", "mount"],
  ],
  ["a lost state, and no image", { ...LOST, configured: "btrfs-loop" }, "is lost"],
  [
    "a lost state, and no image, given up",
    { ...LOST, configured: "btrfs-loop", rebuild: true },
    ["go on", "btrfs-loop", "make"],
  ],
  ["a lost state, given up", { ...LOST, ...TRACES, image: IMAGE, rebuild: true }, ["go on", "btrfs-loop", "mount"]],
  [
    "a lost state, given up, two backends",
    { ...LOST, image: IMAGE, dataRoot: ON_BTRFS, rebuild: true },
    "two possible",
  ],
  ["a lost state, given up, on btrfs", { ...LOST, dataRoot: ON_BTRFS, rebuild: true }, ["go on", "btrfs-base"]],
  // ws-ckpt.
  ["an image of ws-ckpt", { image: OLD_IMAGE, isOldLeft: true }, ["migrate", "btrfs-loop", "mount"]],
  [
    "an image of ws-ckpt, and plain",
    { configured: "plain", image: OLD_IMAGE, isOldLeft: true },
    ["migrate", "plain", "mount"],
  ],
  ["a broken image of ws-ckpt", { image: { ...OLD_IMAGE, file: { uuid: null } }, isOldLeft: true }, "ws-1  /home/p"],
  [
    "a broken image of ws-ckpt, and plain",
    { configured: "plain", image: { ...OLD_IMAGE, file: null }, isOldLeft: true },
    ["migrate", "plain"],
  ],
  ["ws-ckpt on a btrfs", { isOldLeft: true }, ["migrate", "plain"]],
  ["a place of ws-ckpt that is missing", { missingOld: ["/old"] }, "/old does not exist"],
  [
    "a place of ws-ckpt that was taken over",
    { missingOld: ["/old"], state: { ...stateWith("plain"), migrated: [] } },
    ["go on", "plain"],
  ],
  ["a socket that cannot be made", { closed: { what: "the socket", help: "h" } }, "the socket"],
];

test("a start begins, goes on, migrates or is refused, by the facts alone", () => {
  for (const [row, facts, expected] of ROWS) {
    const decided = decide(facts);
    assert.deepEqual(decide(facts), decided, `${row}: it depends on nothing else`);
    if (typeof expected === "string") {
      assert.ok(decided.word === "refuse", row);
      const { message, hint } = decided.because;
      assert.ok(message.includes(expected), `${row}: ${message}`);
      assert.notEqual(hint ?? "", "", row);
      continue;
    }
    assert.ok(decided.word !== "refuse", `${row}: ${JSON.stringify(decided)}`);
    const step = decided.image === null ? [] : [decided.image.step];
    assert.deepEqual([decided.word, decided.type, ...step], expected, row);
    assert.notEqual(decided.reason, "", row);
  }
});

test("a start warns of another backend, of an image that stays unmounted and of points of an earlier installation", () => {
  const warningOf = (row: Row): string => {
    const decided = decide(row);
    assert.ok(decided.word !== "refuse");
    return decided.warning ?? "";
  };
  assert.equal(warningOf({}), "");
  assert.match(warningOf({ configured: "plain", state: stateWith("btrfs-base") }), /says btrfs-base, but/);
  assert.match(warningOf({ configured: "plain", ...TRACES, image: IMAGE }), /btrfs\.img is not mounted/);
  assert.match(warningOf({ dataRoot: ON_BTRFS, controls: ["/data/.cairn/a"] }), /points of 1 folder/);
  assert.match(warningOf({ configured: "plain", image: { ...OLD_IMAGE, file: null } }), /\/state\/btrfs\.img.*ws-1/su);
});

test("the time and the file system of a choice stay as long as the backend stays", () => {
  const before = stateWith("btrfs-base");
  const kept = decide({ state: before, dataRoot: ON_BTRFS });
  assert.ok(kept.word !== "refuse");
  const same = stateOf(kept, before, null);
  assert.deepEqual([same.backend.selected_at, same.backend.filesystem_uuid], ["2026-01-01T00:00:00Z", "u"]);
  assert.equal(same.backend.selection_method, "persisted");
  const other = decide({ configured: "plain", state: before, dataRoot: ELSEWHERE });
  assert.ok(other.word !== "refuse");
  const changed = stateOf(other, before, null);
  assert.notEqual(changed.backend.selected_at, "2026-01-01T00:00:00Z");
  assert.deepEqual([changed.backend.filesystem_uuid, changed.paths.data_root], [null, null]);
});
