import assert from "node:assert/strict";
import { test } from "node:test";
import { REPOSITORY_VERBS } from "../../../verbs/index.ts";
import { exampleOf } from "../../testing-example.ts";
import { fakeLibrary } from "../../testing-fake-library.ts";
import { runFake, runJson } from "../../testing-run.ts";

const UNREADABLE = { snapshot_id: "ab".repeat(32), reason: "its SHA-256 does not match its name" };
const AT = ["-r", "x"];

function answerOf(method: keyof typeof REPOSITORY_VERBS): object {
  return exampleOf(REPOSITORY_VERBS[method].output) as object;
}

test("backup repair snapshots exits 6 with its data if a snapshot cannot be read", async () => {
  const repairSnapshots = () => ({ ...answerOf("repairSnapshots"), unreadable: [UNREADABLE] });
  const { status, envelope } = await runJson(["backup", "repair", "snapshots", ...AT], {
    fake: fakeLibrary({ repairSnapshots }),
  });
  assert.deepEqual([status, envelope.ok, envelope.error?.code], [6, false, "damaged"]);
  assert.match(envelope.error!.hint!, /cairn backup forget ID/);
  assert.deepEqual((envelope.data as { unreadable: unknown }).unreadable, [UNREADABLE]);
});

test("backup repair snapshots counts the intact snapshots", async () => {
  const lost = [{ path: "f", kind: "file", detail: "gone" }];
  const repaired = { snapshot_id: "cd".repeat(32), created_at: "x", new_id: null, forgotten: false, lost };
  const told = async (answer: object): Promise<string | undefined> => {
    const repairSnapshots = () => ({ ...answerOf("repairSnapshots"), ...answer });
    const { stdout } = await runFake(["backup", "repair", "snapshots", ...AT], {
      fake: fakeLibrary({ repairSnapshots }),
    });
    return stdout.trimEnd().split("\n").at(-1);
  };
  assert.equal(await told({ intact: 0 }), "nothing to repair");
  assert.equal(await told({ intact: 1 }), "nothing to repair; 1 snapshot is intact");
  assert.equal(await told({ intact: 2, unreadable: [UNREADABLE] }), "nothing to repair; 2 other snapshots are intact");
  assert.equal(await told({ intact: 0, plan: true, repaired: [repaired] }), "nothing was changed");
  assert.equal(await told({ intact: 2, repaired: [repaired] }), "repaired; 2 other snapshots are intact");
});

test("backup repair index reports recovered and lost blobs", async () => {
  const told = async (saved: number, lost: string[]): Promise<string | undefined> => {
    const dropped = [{ pack: "cd".repeat(32), blobs: 2, reason: "it is gone" }];
    const repair = () => ({ ...answerOf("repair"), dropped_packs: dropped, saved_blobs: saved, lost_blobs: lost });
    const { stdout } = await runFake(["backup", "repair", "index", ...AT], { fake: fakeLibrary({ repair }) });
    return stdout.split("\n")[1];
  };
  assert.equal(await told(0, []), "repaired");
  assert.equal(await told(0, ["ab"]), "repaired, 1 blob lost");
  assert.equal(await told(2, []), "repaired: 2 blobs saved from damaged packs");
  assert.equal(await told(2, ["ab", "cd"]), "repaired: 2 blobs saved from damaged packs, 2 blobs lost");
});

test("backup forget shows an unreadable snapshot that was named", async () => {
  const result = { ...answerOf("forget"), unreadable: [UNREADABLE] };
  const told = async (answer: unknown): Promise<string> =>
    (await runFake(["backup", "forget", "abab", ...AT], { fake: fakeLibrary({ forget: () => answer }) })).stdout;
  assert.match(
    await told({ ...result, removed: [UNREADABLE.snapshot_id] }),
    /^cannot be read\n {2}drop abababab {2}its SHA-256 does not match its name\nremoved 1 snapshot\n/,
  );
  assert.match(await told({ ...result, dry_run: true }), /drop abababab.*\n1 snapshot would be removed; nothing was/);
});

test("backup verify names the command that removes an unreadable snapshot", async () => {
  const problem = { object: "ab", detail: "x", severity: "damage", losses: [] };
  const hintOf = async (...kinds: string[]): Promise<string> => {
    const problems = kinds.map((kind) => ({ ...problem, kind }));
    const fake = fakeLibrary({ verify: () => ({ ...answerOf("verify"), problems }) });
    const { status, envelope } = await runJson(["backup", "verify", ...AT], { fake });
    assert.equal(status, 6);
    return envelope.error!.hint!;
  };
  assert.match(await hintOf("snapshot_damaged"), /^`cairn backup recover` .*, and `cairn backup forget ID` removes/);
  assert.match(
    await hintOf("snapshot_damaged", "pack_missing"),
    /^run `cairn backup repair index`.*`cairn backup forget ID`/,
  );
  assert.doesNotMatch(await hintOf("pack_missing"), /backup forget/);
});

test("backup verify names a lost path once, with the snapshots that had it", async () => {
  const loss = (id: string, path: string): object => ({ snapshot_id: id.repeat(32), path });
  const told = async (...losses: object[]): Promise<string> => {
    const problems = [{ kind: "pack_missing", object: "ab", detail: "x", severity: "damage", losses }];
    const fake = fakeLibrary({ verify: () => ({ ...answerOf("verify"), problems }) });
    return (await runFake(["backup", "verify", ...AT], { fake })).stdout;
  };
  const ids = ["a1", "a2", "a3", "a4", "a5", "a6"];
  assert.match(
    await told(...ids.map((id) => loss(id, "f")), loss("a6", "g")),
    /^ {2}lost: \/f of snapshots a1a1a1a1, a2a2a2a2, a3a3a3a3, a4a4a4a4, a5a5a5a5 and 1 more\n {2}lost: \/g of snapshot a6a6a6a6\n[^ ]/m,
  );
  const many = ids.map((id, i) => loss(id, `f${i}`));
  assert.match(await told(...many, loss("a1", "g")), /^ {2}and 2 paths more; 6 snapshots affected in all$/m);
});
