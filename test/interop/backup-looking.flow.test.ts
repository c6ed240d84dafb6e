import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { after, describe, test } from "node:test";
import { buildCommand, cairn, SCRATCH } from "../fixtures/command.ts";
import {
  backup,
  makeEmpty,
  newRepository,
  repositoryPlace,
  tryBackup,
  type TestRepository,
} from "../fixtures/repository.ts";
import { startSshServer } from "../fixtures/ssh-server.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { newFolder } from "../fixtures/work.ts";
import { firstOf } from "../fixtures/long.ts";

/** Somebody new who looks into a repository, here and elsewhere, and who mistypes. */

const ssh = await startSshServer();
if (!("reason" in ssh)) {
  process.env["CAIRN_SSH_COMMAND"] = ssh.command();
}
const served = newFolder("served");
const args = ["serve-repository", "--path", served, "--listen", "127.0.0.1:0", "--no-auth"];
const server = spawn(process.execPath, [buildCommand(), ...args], { stdio: ["ignore", "pipe", "inherit"] });
const [line] = (await once(server.stdout.setEncoding("utf8"), "data")) as [string];
const url = /rest:http:\/\/[0-9.:]+\//.exec(line)![0];
after(async () => {
  server.kill();
  if (!("reason" in ssh)) await ssh.close();
});

const PLACES: Record<string, (name: string) => string | null> = {
  local: (name) => path.join(SCRATCH, `looking ${name}`),
  rest: (name) => `${url}${name}/`,
  sftp: (name) => ("reason" in ssh ? null : `sftp:${ssh.location(`looking ${name}`)}`),
};

for (const [kind, at] of firstOf(Object.entries(PLACES), 2)) {
  describe(`a repository by ${kind}`, { skip: at("x") === null ? "there is no SSH server" : false }, () => {
    const place = (name: string): TestRepository => {
      const { passwordFile } = repositoryPlace(`looking-${kind}`);
      const location = at(name)!;
      return { location, passwordFile, options: ["-r", location, "--password-file", passwordFile] };
    };

    test("list, find, diff, stats and cat read snapshots of two backups", async () => {
      const [folder, one] = [newFolder("looking"), place("one")];
      makeFirst(folder);
      await makeEmpty(one);
      const ids = ["first", "second"].map((tag) => {
        if (tag === "second") makeSecond(folder);
        const { data } = backup(one, "create", folder, "-t", tag);
        return (data["snapshot"] as { snapshot_id: string }).snapshot_id;
      });
      const listed = (...words: string[]): string[] =>
        (backup(one, "list", ...words).data["snapshots"] as { snapshot_id: string }[]).map((each) => each.snapshot_id);
      assert.deepEqual(listed(), ids);
      assert.deepEqual(listed("latest", "--tag", "first"), [ids[0]]);
      assert.deepEqual(listed("--path", folder, "--latest", "1"), [ids[1]]);
      assert.deepEqual(listed("--host", "elsewhere"), []);
      const found = backup(one, "find", "updated.txt").data["found"] as { snapshot_id: string; path: string }[];
      assert.deepEqual(
        found.map(({ snapshot_id: id, path: where }) => [id, where]),
        ids.toReversed().map((id) => [id, `${folder}/same/updated.txt`]),
      );
      const entries = backup(one, "diff", ids[0]!.slice(0, 10), "latest").data["entries"] as { path: string }[];
      assert.ok(entries.some(({ path: where }) => where === "same/updated.txt"));
      const { selection, snapshots } = backup(one, "stats", "latest").data as { selection: object; snapshots: number };
      assert.equal(snapshots, 2);
      assert.ok((selection as { files: number }).files > 5);
      const { content } = backup(one, "cat", "snapshot", "latest").data as { content: { paths: string[] } };
      assert.deepEqual(content.paths, [folder]);
    });

    test("a mistyped argument gives an error with its own exit status and a hint", () => {
      const one = { ...place("one") };
      const wrong = (status: number, pattern: RegExp, ...words: string[]): void => {
        const done = tryBackup(one, words[0]!, ...words.slice(1));
        const said = `${done.error?.code}: ${done.error?.message} / ${done.error?.hint}`;
        assert.equal(done.status, status, `${words.join(" ")}: ${said}`);
        assert.match(said, pattern, words.join(" "));
      };
      const taken = fs.readFileSync(one.passwordFile, "utf8");
      fs.writeFileSync(one.passwordFile, "another");
      wrong(9, /wrong_password: .* \/ check the password/, "list");
      fs.writeFileSync(one.passwordFile, taken);
      for (const verb of ["diff", "stats", "verify"])
        wrong(3, /not_found: no snapshot "nope" .*backup list/, verb, "nope", ...(verb === "diff" ? ["latest"] : []));
      wrong(3, /not_found: no snapshot 0000000000/, "list", "0000000000");
      wrong(3, /not_found: no tree/, "cat", "tree", "0000000000");
      wrong(3, /not_found: no pack/, "find", "--object", "pack", "0000000000");
      wrong(2, /usage: cat shows config/, "cat", "secrets");
      wrong(2, /usage: cat index needs an id/, "cat", "index");
      const { location } = place("none");
      const none = cairn(["backup", "list", "-r", location, "--password-file", one.passwordFile]);
      assert.equal(none.status, 3, none.stdout);
      assert.match(`${none.error?.hint}`, /cairn backup init -r/);
      assert.doesNotMatch(`${none.error?.message}`, /config config/);
    });
  });
}

test("diff fails as ambiguous if a prefix matches several snapshots", async () => {
  const [folder, one] = [newFolder("looking"), await newRepository("ambiguous")];
  fs.writeFileSync(path.join(folder, "a"), "a");
  const ids: string[] = [];
  // Two of so many begin alike.
  for (let i = 0; i < 17 || new Set(ids.map((id) => id.slice(0, 2))).size === ids.length; i++) {
    assert.ok(i < 200);
    const { data } = backup(one, "create", folder);
    ids.push((data["snapshot"] as { snapshot_id: string }).snapshot_id);
  }
  const prefix = ids.map((id) => id.slice(0, 2)).find((word, at, all) => all.indexOf(word) !== at)!;
  const done = tryBackup(one, "diff", prefix, "latest");
  assert.deepEqual([done.status, done.error?.code], [4, "ambiguous"]);
});
