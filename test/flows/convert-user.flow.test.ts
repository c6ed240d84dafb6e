import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, test, type TestContext } from "node:test";
import { isSubvolume } from "../../src/fs/linux/btrfs.ts";
import { cairn, cairnOk, type RunOptions } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { subvolumesOf } from "../fixtures/held-place.ts";
import { type LoopFileSystem, loopFileSystem, ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, type OrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";
import { makeFirst } from "../fixtures/two-states.ts";

/** Conversions in place by an ordinary user. */

const SUBVOLUMES_MAY_GO = ["user_subvol_rm_allowed"];

void describe("an ordinary user", { skip: whyNoOrdinaryUser() ?? false }, () => {
  let user: OrdinaryUser;

  before(() => void (user = installForOrdinaryUser()));

  after(() => user.remove());

  interface Place {
    volume: LoopFileSystem;
    folder: string;
    options: RunOptions;
    init: string[];
  }

  /** A plain folder of the user on a fresh btrfs, whose root is his own too. */
  function begin(t: TestContext, mountOptions: readonly string[]): Place | null {
    const volume = loopFileSystem(t, "btrfs", { mountOptions });
    if (volume === null) return null;
    fs.chownSync(volume.root, ORDINARY_USER, ORDINARY_USER);
    const folder = path.join(volume.root, "ws");
    fs.mkdirSync(folder);
    makeFirst(folder);
    spawnSync("chown", ["-hR", `${ORDINARY_USER}:${ORDINARY_USER}`, folder]);
    fs.mkdirSync(path.join(folder, "locked"), { mode: 0o500 });
    fs.chownSync(path.join(folder, "locked"), ORDINARY_USER, ORDINARY_USER);
    const init = ["init", folder, "--engine", "btrfs-snapshot", "--allow", "holders"];
    return { volume, folder, options: user.optionsIn("/"), init };
  }

  for (const mountOptions of [SUBVOLUMES_MAY_GO, []])
    test(`an ordinary user converts a folder of their own, mount options ${mountOptions.join() || "none"}`, (t) => {
      const place = begin(t, mountOptions);
      if (place === null) return;
      const { volume, folder, options, init } = place;
      const state = readFolder(folder);
      cairnOk(init, options);
      assert.ok(isSubvolume(folder));
      assertFolder(folder, state, "converted");
      const { data, warnings } = cairnOk(["save", folder], options);
      assert.deepEqual(warnings, []);
      assert.equal((data["save_point"] as { effective_engine: string }).effective_engine, "btrfs-snapshot");
      const left = fs.readdirSync(volume.root).filter((name) => !name.startsWith(".cairn-original-"));
      assert.deepEqual(left.toSorted(), [".cairn-control", "ws"]);
      cairnOk(["release", folder, "--delete-points"], options);
      assert.deepEqual(subvolumesOf(volume.root), ["ws"]);
    });

  for (const mountOptions of [SUBVOLUMES_MAY_GO, []])
    test(`a conversion names the right that an ordinary user lacks, mount options ${mountOptions.join() || "none"}`, (t) => {
      const place = begin(t, mountOptions);
      if (place === null) return;
      const { volume, folder, options, init } = place;
      const refused = (wanted: RegExp): void => {
        const { error, stdout } = cairn(init, options);
        assert.equal(error?.code, "permission", stdout);
        assert.match(error.message, wanted);
        assert.ok(error.hint);
        assert.deepEqual([isSubvolume(folder), subvolumesOf(volume.root)], [false, []]);
        const left = fs.readdirSync(volume.root).filter((name) => name !== ".cairn-control");
        assert.deepEqual(left, ["ws"]);
      };
      const file = path.join(folder, "same/kept.txt");
      fs.chownSync(file, 4711, 4711);
      refused(/same\/kept\.txt: owner/);
      fs.chmodSync(file, 0o600);
      refused(/same\/kept\.txt: EACCES/);
      fs.chownSync(file, ORDINARY_USER, ORDINARY_USER);
      fs.chownSync(folder, 4711, 4711);
      refused(/belongs to the user 4711/);
      fs.chownSync(folder, ORDINARY_USER, ORDINARY_USER);
      fs.chownSync(volume.root, 0, 0);
      refused(/cannot be written to/);
      fs.chownSync(volume.root, ORDINARY_USER, ORDINARY_USER);
      cairnOk(init, options);
    });
});
