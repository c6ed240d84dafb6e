import assert from "node:assert/strict";
import { test } from "node:test";
import type { BackendType, DaemonState } from "../formats/records/daemon-state.ts";
import { decideBackend, stateOf } from "./decide-backend.ts";

function stateWith(type: BackendType, dataRoot: string | null): DaemonState {
  return {
    backend: { type, selection_method: "auto-detect", selected_at: "2026-01-01T00:00:00Z", filesystem_uuid: "u" },
    paths: { data_root: dataRoot, loop_image: null },
    workspaces: [],
    schedules: {},
  };
}

const ON_BTRFS = { kind: "btrfs", uuid: "u" };
const ELSEWHERE = { kind: "ext4", uuid: "e" };
const NOWHERE = { kind: null, uuid: null };

test("the configured backend wins over the recorded one, and a backend is detected only without both", () => {
  const rows: [
    configured: BackendType | null,
    kept: BackendType | null,
    probe: typeof ON_BTRFS | typeof NOWHERE,
    type: BackendType,
    method: string,
  ][] = [
    [null, null, ON_BTRFS, "btrfs-base", "auto-detect"],
    [null, null, ELSEWHERE, "plain", "auto-detect"],
    [null, null, NOWHERE, "plain", "auto-detect"],
    // What was chosen is neither detected anew nor exchanged where it is gone.
    [null, "plain", ON_BTRFS, "plain", "persisted"],
    [null, "btrfs-base", ELSEWHERE, "btrfs-base", "persisted"],
    [null, "btrfs-base", NOWHERE, "btrfs-base", "persisted"],
    [null, "btrfs-loop", NOWHERE, "btrfs-loop", "persisted"],
    ["plain", "btrfs-base", ON_BTRFS, "plain", "config-override"],
    ["btrfs-base", "plain", NOWHERE, "btrfs-base", "config-override"],
    ["btrfs-loop", null, ON_BTRFS, "btrfs-loop", "config-override"],
  ];
  for (const [configured, kept, probe, type, method] of rows) {
    const config = { backend: { type: configured, data_root: "/data" } };
    const state = kept === null ? null : stateWith(kept, "/data");
    const decision = decideBackend(config, state, probe);
    const context = JSON.stringify([configured, kept, probe]);
    assert.deepEqual([decision.type, decision.method], [type, method], context);
    assert.notEqual(decision.reason, "", context);
    assert.equal(decision.warning !== null, configured !== null && kept !== null && configured !== kept, context);
    assert.deepEqual(decideBackend(config, state, probe), decision, "it depends on nothing else");
  }
});

test("the time and the file system of a choice stay as long as the backend stays", () => {
  const config = { backend: { type: null, data_root: null } };
  const kept = stateWith("btrfs-base", "/data");
  const same = stateOf(decideBackend(config, kept, ON_BTRFS), kept, ON_BTRFS);
  assert.deepEqual([same.backend.selected_at, same.backend.filesystem_uuid], ["2026-01-01T00:00:00Z", "u"]);
  assert.equal(same.backend.selection_method, "persisted");
  const other = { backend: { type: "plain" as const, data_root: null } };
  const changed = stateOf(decideBackend(other, kept, ELSEWHERE), kept, ELSEWHERE);
  assert.notEqual(changed.backend.selected_at, "2026-01-01T00:00:00Z");
  assert.deepEqual([changed.backend.filesystem_uuid, changed.paths.data_root], [null, null]);
});
