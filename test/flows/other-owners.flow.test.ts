import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, before, describe, test, type TestContext } from "node:test";
import { cairn, cairnOk, type Outcome, type RunOptions, SCRATCH } from "../fixtures/command.ts";
import { type LoopKind, loopFileSystem } from "../fixtures/loop-file-system.ts";
import { firstOf } from "../fixtures/long.ts";
import { installForOrdinaryUser, type OrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";

/** Restores by a member of a group, in a folder that several users work in. */

const skip = whyNoOrdinaryUser() ?? false;

const ALICE = 70_001;
const BOB = 70_002;
const TEAM = 70_077;
const OTHERS = 70_078;

interface LeftOut {
  path: string;
  reason: string;
  detail: string;
  aspects?: string[];
}

interface Shared {
  folder: string;
  root: string;
  alice: RunOptions;
  /** Alice with CAP_LEASE, which lets her take leases on files of others. */
  leasing: RunOptions;
  at(name: string): string;
}

describe("members of a group", { skip }, () => {
  let user: OrdinaryUser;

  before(() => (user = installForOrdinaryUser(ALICE)));

  after(() => user.remove());

  function share(t: TestContext, kind: LoopKind, engine: string): Shared | null {
    const volume = loopFileSystem(t, kind, kind === "btrfs" ? { mountOptions: ["user_subvol_rm_allowed"] } : {});
    if (volume === null) return null;
    fs.chownSync(volume.root, ALICE, TEAM);
    fs.chmodSync(volume.root, 0o775);
    const folder = path.join(volume.root, "shared");
    if (engine === "btrfs-snapshot") execFileSync("btrfs", ["-q", "subvolume", "create", folder]);
    else fs.mkdirSync(folder);
    fs.chownSync(folder, ALICE, TEAM);
    fs.chmodSync(folder, 0o2770);
    const own = user.optionsIn(folder);
    const as = (caps: string[]): RunOptions => ({
      ...own,
      prefix: ["setpriv", `--reuid=${ALICE}`, `--regid=${ALICE}`, `--groups=${TEAM}`, ...caps, "--"],
    });
    const alice = as(["--inh-caps=-all"]);
    const leasing = as(["--inh-caps=-all,+lease", "--ambient-caps=-all,+lease"]);
    cairnOk(["init", folder, "--engine", engine], alice);
    return { folder, root: volume.root, alice, leasing, at: (name) => path.join(folder, name) };
  }

  /** Writes a file in the folder with an owner and group. */
  function put(
    at: string,
    content: string,
    { uid, gid = TEAM, mode = 0o660 }: { uid: number; gid?: number; mode?: number },
  ): void {
    fs.writeFileSync(at, content);
    fs.chownSync(at, uid, gid);
    fs.chmodSync(at, mode);
  }

  function factsOf(at: string): string {
    const { uid, gid, mode } = fs.statSync(at);
    return `${uid}:${gid} ${(mode & 0o7777).toString(8)} ${fs.readFileSync(at, "utf8").trim()}`;
  }

  function readableTo(uid: number, at: string): boolean {
    const how = [`--reuid=${uid}`, `--regid=${uid}`, `--groups=${TEAM}`, "--inh-caps=-all"];
    return spawnSync("setpriv", [...how, "cat", at]).status === 0;
  }

  function leftOut({ data }: Outcome): LeftOut[] {
    return data["left_out"] as LeftOut[];
  }

  function partly(args: string[], options: RunOptions): Outcome {
    const done = cairn(args, options);
    assert.equal(done.status, 10, `${args.join(" ")}: ${done.stdout}\n${done.stderr}`);
    return done;
  }

  for (const [kind, engine, method] of firstOf(
    [
      ["ext4", "copy", "entries"],
      ["xfs", "reflink-copy", "entries"],
      ["btrfs", "btrfs-snapshot", "entries"],
      ["btrfs", "copy", "entries"],
      ["xfs", "copy", "entries"],
    ] as const,
    3,
  )) {
    test(`a restore by a member keeps files of others, whose group reads what comes back: ${kind}, ${engine}`, (t) => {
      const shared = share(t, kind, engine);
      if (shared === null) return;
      const { folder, alice, at } = shared;
      put(at("f"), "one", { uid: BOB });
      put(at("gone"), "gone", { uid: BOB });
      put(at("tool"), "#!/bin/sh", { uid: BOB, mode: 0o4775 });
      put(at("grouped"), "#!/bin/sh", { uid: BOB, mode: 0o2775 });
      put(at("mine"), "mine", { uid: ALICE });
      fs.mkdirSync(at("d"));
      fs.chownSync(at("d"), BOB, TEAM);
      fs.chmodSync(at("d"), 0o2770);
      put(at("d/inside"), "inside", { uid: BOB });
      const { save_point_id: first } = cairnOk(["save"], alice).data["save_point"] as { save_point_id: string };
      put(at("f"), "two-two", { uid: BOB });
      put(at("mine"), "edited", { uid: ALICE });
      for (const name of ["gone", "tool", "grouped", "d"]) fs.rmSync(at(name), { recursive: true });
      const planned = cairn(["restore", first, "--plan"], alice).data["plan"] as { left_out: LeftOut[] };
      if (engine === "copy")
        assert.deepEqual(
          planned.left_out.map(({ path: each }) => each),
          ["f"],
        );
      const back = partly(["restore", first, "--method", method], alice);
      assert.equal(factsOf(at("f")), `${BOB}:${TEAM} 660 two-two`);
      const stayed = leftOut(back).find(({ path: each }) => each === "f")!;
      assert.deepEqual([stayed.reason, stayed.aspects], ["not_permitted", undefined]);
      assert.match(stayed.detail, /belongs to the user 70002.*--take-ownership/);
      assert.equal(factsOf(at("gone")), `${ALICE}:${TEAM} 660 gone`);
      assert.equal(factsOf(at("tool")), `${ALICE}:${TEAM} 775 #!/bin/sh`);
      assert.equal(factsOf(at("grouped")), `${ALICE}:${TEAM} 2775 #!/bin/sh`);
      assert.equal(factsOf(at("mine")), `${ALICE}:${TEAM} 660 mine`);
      assert.equal(factsOf(at("d/inside")), `${ALICE}:${TEAM} 660 inside`);
      const directory = fs.statSync(at("d"));
      assert.deepEqual([directory.uid, directory.gid, directory.mode & 0o7777], [ALICE, TEAM, 0o2770]);
      for (const name of ["f", "gone", "mine", "d/inside"]) assert.ok(readableTo(BOB, at(name)), name);
      cairn(["undo"], alice);
      assert.equal(factsOf(at("mine")), `${ALICE}:${TEAM} 660 edited`);
      assert.deepEqual(fs.readdirSync(folder).toSorted(), ["f", "mine"]);
      partly(["restore", first, "f", "--take-ownership"], alice);
      assert.equal(factsOf(at("f")), `${ALICE}:${TEAM} 660 one`);
      partly(["undo"], alice);
      assert.equal(factsOf(at("f")), `${ALICE}:${TEAM} 660 two-two`);
      assert.ok(readableTo(BOB, at("f")));
      for (const [verb, ...args] of [
        ["restore", first, "--to", path.join(shared.root, "to")],
        ["fork", first, path.join(shared.root, "fork")],
      ] as const) {
        const done = cairn([verb, ...args], alice);
        assert.ok(done.status === 0 || done.status === 10, done.stdout);
        const made = args.at(-1)!;
        const isSnapshot = engine === "btrfs-snapshot";
        const owner = isSnapshot ? BOB : ALICE;
        assert.equal(factsOf(path.join(made, "f")), `${owner}:${TEAM} 660 one`, verb);
        assert.equal(
          factsOf(path.join(made, "tool")),
          `${owner}:${TEAM} ${isSnapshot ? "4775" : "775"} #!/bin/sh`,
          verb,
        );
      }
    });
  }

  test("a restore keeps a file that came from another user, and one whose group it could not keep in a copy", (t) => {
    const shared = share(t, "ext4", "copy");
    if (shared === null) return;
    const { alice, at } = shared;
    put(at("f"), "mine", { uid: ALICE });
    put(at("inherited"), "one", { uid: ALICE, gid: OTHERS });
    cairnOk(["save"], alice);
    // Bob's editor replaces the file; Alice is not a member of the group that a setgid folder once gave her file.
    put(at("f"), "bob's", { uid: BOB });
    put(at("inherited"), "two", { uid: ALICE, gid: OTHERS });
    const { ino } = fs.statSync(at("inherited"));
    const back = partly(["restore", "latest"], alice);
    assert.deepEqual(
      leftOut(back).map(({ path: each }) => each),
      ["f"],
      JSON.stringify(leftOut(back)),
    );
    assert.equal(factsOf(at("f")), `${BOB}:${TEAM} 660 bob's`);
    assert.equal(factsOf(at("inherited")), `${ALICE}:${OTHERS} 660 one`);
    assert.equal(fs.statSync(at("inherited")).ino, ino);
    cairnOk(["undo"], alice);
    assert.equal(factsOf(at("inherited")), `${ALICE}:${OTHERS} 660 two`);
    assert.equal(fs.statSync(at("inherited")).ino, ino);
  });

  test("a database of which another user owns the log stays whole", (t) => {
    const shared = share(t, "ext4", "copy");
    if (shared === null) return;
    // With this right the databases count as unused, though Alice sees no process of other users.
    const { leasing: alice, at } = shared;
    const database = new DatabaseSync(at("app.db"));
    database.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    const files = ["app.db", "app.db-wal"];
    const copies = files.map((name) => fs.readFileSync(at(name)));
    database.close();
    files.forEach((name, i) => {
      fs.writeFileSync(at(name), copies[i]!);
      fs.chownSync(at(name), i === 0 ? ALICE : BOB, TEAM);
      fs.chmodSync(at(name), 0o660);
    });
    cairnOk(["save", "--databases", "copy"], alice);
    const more = new DatabaseSync(at("other.db"));
    more.exec("CREATE TABLE more (c); PRAGMA journal_mode = WAL; CREATE TABLE u (b); INSERT INTO u VALUES (2), (3)");
    const others = ["other.db", "other.db-wal"].map((name) => fs.readFileSync(at(name)));
    more.close();
    files.forEach((name, i) => fs.writeFileSync(at(name), others[i]!));
    for (const name of fs.readdirSync(shared.folder)) if (name.startsWith("other")) fs.rmSync(at(name));
    const back = partly(["restore", "latest", "--method", "entries"], alice);
    assert.deepEqual(
      leftOut(back)
        .map(({ path: each }) => each)
        .toSorted(),
      files,
    );
    files.forEach((name, i) => assert.deepEqual(fs.readFileSync(at(name)), others[i]!, name));
  });

  /** A file of Bob's that Alice can write in place. Returns the id of the point with the content of the first call. */
  function leased(shared: Shared, contents: readonly [string, string]): string {
    put(shared.at("f"), contents[0], { uid: BOB });
    const { save_point_id: first } = cairnOk(["save"], shared.leasing).data["save_point"] as { save_point_id: string };
    put(shared.at("f"), contents[1], { uid: BOB });
    return first;
  }

  for (const [kind, engine] of firstOf(
    [
      ["ext4", "copy"],
      ["btrfs", "reflink-copy"],
      ["xfs", "reflink-copy"],
    ] as const,
    2,
  ))
    test(`a restore with CAP_LEASE writes a file of another user in place: ${kind}, ${engine}`, (t) => {
      const shared = share(t, kind, engine);
      if (shared === null) return;
      const { leasing, at } = shared;
      const first = leased(shared, ["one", "a longer text".repeat(500)]);
      spawnSync("setfacl", ["-m", `u:${OTHERS}:rw`, at("f")]);
      const { ino } = fs.statSync(at("f"));
      const back = partly(["restore", first, "--method", "entries"], leasing);
      // Only the owner may set times and access lists.
      assert.ok(
        leftOut(back).every(
          ({ path: each, aspects }) => each === "f" && ["times", "xattrs"].includes(aspects?.join() ?? ""),
        ),
        JSON.stringify(leftOut(back)),
      );
      assert.equal(factsOf(at("f")), `${BOB}:${TEAM} 660 one`);
      partly(["undo", "--method", "entries"], leasing);
      assert.equal(fs.readFileSync(at("f"), "utf8"), "a longer text".repeat(500));
      assert.equal(fs.statSync(at("f")).ino, ino);
      assert.match(execFileSync("getfacl", ["-ncp", at("f")], { encoding: "utf8" }), new RegExp(`user:${OTHERS}:rw`));
    });

  test("a file of another user stays if it is open, linked, closed, set-uid or an exchange of kinds", (t) => {
    const shared = share(t, "ext4", "copy");
    if (shared === null) return;
    const { leasing, at } = shared;
    const names = ["open", "linked", "closed", "tool", "kind", "mapped"];
    for (const name of names) put(at(name), "one", { uid: BOB });
    fs.linkSync(at("linked"), path.join(shared.root, "another"));
    fs.chmodSync(at("tool"), 0o4775);
    cairnOk(["save"], leasing);
    for (const name of names) fs.writeFileSync(at(name), "two-two");
    fs.chownSync(at("tool"), BOB, TEAM);
    fs.chmodSync(at("tool"), 0o4775);
    fs.chmodSync(at("closed"), 0o444);
    fs.rmSync(at("kind"));
    fs.mkdirSync(at("kind"));
    fs.chownSync(at("kind"), BOB, TEAM);
    const open = fs.openSync(at("open"), "r");
    t.after(() => fs.closeSync(open));
    const facts = names.filter((name) => name !== "kind").map((name) => `${name} ${fs.statSync(at(name)).ino}`);
    const back = partly(["restore", "latest"], leasing);
    const stayed = leftOut(back)
      .filter(({ aspects }) => aspects === undefined)
      .map(({ path: each }) => each);
    assert.deepEqual(stayed.toSorted(), ["closed", "linked", "open", "tool"]);
    const isKept = (fact: string): boolean => facts.includes(fact);
    for (const name of [...stayed, "mapped"]) assert.ok(isKept(`${name} ${fs.statSync(at(name)).ino}`), name);
    for (const name of stayed) assert.equal(fs.readFileSync(at(name), "utf8"), "two-two", name);
    assert.equal(factsOf(at("tool")), `${BOB}:${TEAM} 4775 two-two`);
    assert.equal(factsOf(at("mapped")), `${BOB}:${TEAM} 660 one`);
    assert.equal(factsOf(at("kind")), `${ALICE}:${TEAM} 660 one`);
    fs.rmSync(path.join(shared.root, "another"));
  });

  test("a restore that writes in place, if killed at any step, leaves the old or the new content", (t) => {
    const shared = share(t, "ext4", "copy");
    if (shared === null) return;
    const { leasing, alice, at } = shared;
    const texts = ["n".repeat(10_000), "old ".repeat(1500)] as const;
    const first = leased(shared, texts);
    const { ino } = fs.statSync(at("f"));
    const args = ["restore", first, "--method", "entries"];
    const { failpoints } = cairn(args, { ...leasing, failpoint: "trace" });
    const names = ["staged", "half", "untruncated", "written", "set"].map((name) => `restore.in-place-${name}`);
    for (const name of [...names, "restore.in-place"]) assert.ok(failpoints.includes(name), name);
    const seen = new Set<string>();
    const isOwn = (i: number): boolean => failpoints[i]?.includes("in-place") === true;
    const passes = [...failpoints.keys()].filter(
      (i) => isOwn(i) || isOwn(i + 1) || failpoints[i] === "restore.swapped",
    );
    for (const i of passes)
      // Who finishes the restore may lack the right to a lease, and another program may have the file open.
      for (const finishing of isOwn(i) ? [leasing, alice] : [leasing]) {
        put(at("f"), texts[1], { uid: BOB });
        const killed = cairn(args, { ...leasing, failpoint: `#${i + 1}` });
        assert.ok(killed.killed, `${failpoints[i]}: ${killed.stdout}`);
        const open = fs.openSync(at("f"), "r");
        const next = cairn(["save"], finishing);
        fs.closeSync(open);
        assert.equal(next.status, 0, `${failpoints[i]}: ${next.stdout}`);
        const content = fs.readFileSync(at("f"), "utf8");
        const which = content === texts[0] ? "new" : content === texts[1] ? "old" : "neither";
        assert.notEqual(which, "neither", `killed at ${failpoints[i]}`);
        assert.equal(fs.statSync(at("f")).ino, ino);
        assert.equal(fs.statSync(at("f")).uid, BOB);
        seen.add(which);
      }
    assert.deepEqual([...seen].toSorted(), ["new", "old"]);
    const { findings } = cairnOk(["doctor"], leasing).data as { findings: { severity: string }[] };
    assert.deepEqual(
      findings.filter(({ severity }) => severity !== "info"),
      [],
    );
  });

  test("recovery keeps a file that another program wrote into after a kill", (t) => {
    const shared = share(t, "ext4", "copy");
    if (shared === null) return;
    const { leasing, at } = shared;
    const first = leased(shared, ["n".repeat(10_000), "old ".repeat(1500)]);
    const killed = cairn(["restore", first, "--method", "entries"], { ...leasing, failpoint: "restore.in-place-half" });
    assert.ok(killed.killed);
    fs.writeFileSync(at("f"), "written by Bob");
    cairnOk(["save"], leasing);
    assert.equal(fs.readFileSync(at("f"), "utf8"), "written by Bob");
    const { recovered } = cairnOk(["status"], leasing).data as { recovered: { kept: { path: string }[] }[] };
    assert.deepEqual(
      recovered.at(-1)!.kept.map(({ path: each }) => each),
      ["f"],
    );
  });

  test("a restore of a backup over a shared folder and in place keeps files of others, or takes them if told to", (t) => {
    const shared = share(t, "ext4", "copy");
    if (shared === null) return;
    const { at, folder } = shared;
    const env = {
      ...shared.alice.env,
      CAIRN_PASSWORD: "secret",
      CAIRN_REPOSITORY: path.join(shared.root, "repository"),
    };
    const alice = { ...shared.alice, env };
    put(at("f"), "one", { uid: BOB });
    put(at("mine"), "one", { uid: ALICE });
    cairnOk(["backup", "init"], alice);
    cairnOk(["backup", "create"], alice);
    for (const [name, uid] of [
      ["f", BOB],
      ["mine", ALICE],
    ] as const)
      put(at(name), "two-two", { uid });
    for (const how of [["--to", folder, "--overwrite", "always"], ["--in-place"]]) {
      put(at("mine"), "two-two", { uid: ALICE });
      const back = partly(["backup", "restore", "latest", ...how], alice);
      const stayed = leftOut(back).filter(({ path: each }) => each === "f");
      assert.deepEqual(
        stayed.map(({ reason, aspects }) => [reason, aspects]),
        [["not_permitted", undefined]],
        how.join(" "),
      );
      assert.equal(factsOf(at("f")), `${BOB}:${TEAM} 660 two-two`);
      assert.equal(factsOf(at("mine")), `${ALICE}:${TEAM} 660 one`);
    }
    const to = path.join(shared.root, "to");
    partly(["backup", "restore", "latest", "--to", to], alice);
    assert.equal(factsOf(path.join(to, "f")), `${ALICE}:${TEAM} 660 one`);
    for (const how of [["--to", folder, "--overwrite", "always"], ["--in-place"]]) {
      fs.rmSync(at("f"));
      put(at("f"), "two-two", { uid: BOB });
      partly(["backup", "restore", "latest", ...how, "--take-ownership"], alice);
      assert.equal(factsOf(at("f")), `${ALICE}:${TEAM} 660 one`, how.join(" "));
    }
  });
});

test("backup restore --ownership-by-name goes by the names of the machine that restores", { skip }, (t) => {
  const scratch = fs.mkdtempSync(path.join(SCRATCH, "by-name-"));
  const folder = path.join(scratch, "w");
  fs.mkdirSync(path.join(folder, "d"), { recursive: true });
  const files = { known: [2, 2], unknown: [3, 3] } as const;
  for (const [name, [uid, gid]] of Object.entries(files)) {
    fs.writeFileSync(path.join(folder, "d", name), name);
    fs.chownSync(path.join(folder, "d", name), uid, gid);
    fs.chmodSync(path.join(folder, "d", name), 0o6755);
  }
  fs.chownSync(path.join(folder, "d"), 2, 2);
  const env = { CAIRN_PASSWORD: "secret", CAIRN_REPOSITORY: path.join(scratch, "repository") };
  cairnOk(["backup", "init"], { env });
  cairnOk(["backup", "create", folder], { env });
  // On the other machine bin is another number, sys does not exist, and its number is a stranger's.
  const tables = { passwd: "/nonexistent:/bin/false", group: "" };
  const binds = Object.entries(tables).map(([name, rest]) => {
    const file = path.join(scratch, name);
    const row = (user: string, id: number): string =>
      name === "passwd" ? `${user}:x:${id}:${id}::${rest}` : `${user}:x:${id}:`;
    fs.writeFileSync(file, [row("root", 0), row("bin", 60_002), row("stranger", 3)].join("\n"));
    return `mount --bind ${file} /etc/${name}`;
  });
  const script = `${binds.join(" && ")} && exec "$@"`;
  const prefix = ["unshare", "--mount", "sh", "-c", script, "sh"];
  if (spawnSync(prefix[0]!, [...prefix.slice(1), "true"]).status !== 0)
    return t.skip("unshare makes no namespace here");
  const owners = (to: string): string[] =>
    ["d", "d/known", "d/unknown"].map((name) => {
      const { uid, gid, mode } = fs.statSync(path.join(to, name));
      return `${uid}:${gid} ${(mode & 0o7777).toString(8)}`;
    });
  for (const over of [false, true]) {
    const to = path.join(scratch, over ? "over" : "to");
    if (over) fs.cpSync(folder, path.join(to, "d-of-old"), { recursive: true });
    const how = over ? ["--overwrite", "always"] : [];
    const args = ["backup", "restore", `latest:${folder}`, "--to", to, ...how, "--ownership-by-name"];
    const back = cairn(args, { env, prefix });
    assert.equal(back.status, 10, `${back.stdout}${back.stderr}`);
    assert.deepEqual(owners(to), ["60002:60002 755", "60002:60002 755", "3:3 755"]);
    for (const name of ["d/known", "d/unknown"]) assert.ok(back.stdout.includes(name), `${name} is named`);
    assert.deepEqual([back.data["owners"], back.data["unknown_owners"]], ["names", ["group sys", "user sys"]]);
  }
  const back = cairnOk(["backup", "restore", `latest:${folder}`, "--to", path.join(scratch, "numbers")], {
    env,
    prefix,
  });
  assert.equal(back.data["owners"], "numbers");
  assert.deepEqual(owners(path.join(scratch, "numbers")), ["2:2 755", "2:2 6755", "3:3 6755"]);
});
