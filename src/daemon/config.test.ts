import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { parseConfig } from "./config.ts";

test("parseConfig reads a configuration and adds defaults", () => {
  const config = parseConfig(
    '[backend]\ntype = "btrfs-loop"\n[loop]\nsize = "2GiB"\n[socket]\ngroup = "cairn"\n[retention]\nevery = "15m"\nkeep = { last = 5, within = "30d", max_age = "1y" }\n',
    "c.toml",
  );
  assert.deepEqual(
    [config.backend.type, config.loop.bytes, config.loop.percent_of_disk],
    ["btrfs-loop", 2 * 2 ** 30, 50],
  );
  assert.deepEqual(config.retention, { keep: { keepLast: 5, keepWithin: "30d", maxAge: "1y" }, every_ms: 900_000 });
  assert.deepEqual([config.socket.group, config.socket.calls], ["cairn", 64]);
  assert.deepEqual(parseConfig("", "c.toml").retention.keep, null);
  assert.equal(parseConfig("", "c.toml").http.listen, null);
  const open = '[http]\nlisten = "[::]:7777"\ncertificate = "/c"\nkey = "/k"\n[socket]\nagents = [1001]\n';
  assert.deepEqual(parseConfig(open, "c.toml").http, { listen: "[::]:7777", certificate: "/c", key: "/k" });
  assert.deepEqual(parseConfig(open, "c.toml").socket.agents, [1001]);
});

const ROW = '[[backup]]\nrepository = "/r"\npassword_file = "/p"\nevery = "1d"\n';

test("parseConfig reads schedules and limits and adds defaults", () => {
  const none = parseConfig("", "c.toml");
  assert.deepEqual([none.saves, none.backup], [{ when_quiet_ms: null, at_most_every_ms: null }, []]);
  const { saves, limits, backup } = parseConfig(
    `${ROW}\n[saves]\nwhen_quiet = "5s"\n[limits]\nproof_age = "60d"\n`,
    "c.toml",
  );
  assert.deepEqual(saves, { when_quiet_ms: 5000, at_most_every_ms: null });
  assert.deepEqual(limits, { save_age_ms: null, backup_age_ms: null, proof_age_ms: 60 * 86_400_000 });
  assert.deepEqual(backup, [
    {
      workspace: null,
      repository: "/r",
      password_file: "/p",
      password_command: null,
      age_identity: null,
      every_ms: 86_400_000,
      verify_every_ms: null,
      read_all_within_ms: null,
      restore_check_every_ms: null,
      probe: [],
      keep: null,
      prune_every_ms: null,
    },
  ]);
});

test("the example in docs/daemon.md is a valid configuration", () => {
  const page = readFileSync(new URL("../../docs/daemon.md", import.meta.url), "utf8");
  const [, example] = /```toml\n([^]*?)```/.exec(page)!;
  const { alarm, backup, saves, limits } = parseConfig(example!.replace('"builder"', "1001"), "daemon.md");
  assert.equal(backup[0]!.read_all_within_ms, 30 * 86_400_000);
  assert.deepEqual(backup[0]!.keep, { keepDaily: 14, keepWeekly: 8 });
  assert.deepEqual(backup[0]!.probe, ['sqlite3 "$DIR/mail.db" "select count(*) from messages"']);
  assert.equal(saves.at_most_every_ms, 300_000);
  assert.equal(alarm.on_failure, "jq -r .text | mail -s Cairn ann");
  assert.equal(limits.backup_age_ms, 2 * 86_400_000);
});

test("parseConfig reports an error with its line", () => {
  for (const [text, line, problem] of [
    ["[backend\n", 1, /./],
    ["[backend]\n\ntype = 3\n", 3, /type: must be one of/],
    ["[bakend]\n", 1, /no table \[bakend\]/],
    ['\n[backend]\ntipe = "plain"\n', 3, /no key "tipe"/],
    ["backend = 1\n", 1, /must be a table/],
    ['[loop]\nsize = "big"\n', 2, /size such as/],
    ["[loop]\nsize = 0\n", 2, /size such as/],
    ["[loop]\npercent_of_disk = 101\n", 2, /from 1 to 100/],
    ['[retention]\nevery = "1ms"\n', 2, /a time/],
    ['[retention]\nevery = "3651d"\n', 2, /a time/],
    ["[saves]\nwhen_quiet = 30\n", 2, /a text/],
    ['[limits]\nage = "1h"\n', 2, /no key "age"; known: save_age, backup_age, proof_age/],
    ["[backup]\n", 1, /rows: \[\[backup\]\]/],
    [`${ROW}[[backup]]\n`, 5, /needs repository/],
    [`${ROW}[[backup]]\nrepository = "relative"\n`, 6, /repository: must be an absolute path/],
    [`${ROW}[[backup]]\nrepository = "rest:https://me:secret@host/"\n`, 6, /contains a password/],
    [`[[backup]]\nrepository = "/r"\n`, 1, /needs password_file/],
    [`${ROW}${ROW}`, 5, /repeats the repository/],
    [`${ROW}workspace = "w"\n`, 5, /absolute/],
    [`${ROW}read_all_within = "30d"\n`, 1, /needs a verify_every/],
    [`${ROW}verify_every = "2d"\nread_all_within = "1d"\n`, 1, /not longer/],
    [`${ROW}probe = "true"\n`, 5, /probe: must be a list of commands/],
    [`${ROW}probe = [" "]\n`, 5, /probe: a probe is a command/],
    [`${ROW}keep = { last = 1 }\n`, 1, /needs prune_every/],
    [`${ROW}prune_every = "1d"\nkeep = { max_age = "1d" }\n`, 6, /keep/],
    [`${ROW}prune_every = "1d"\n${ROW}workspace = "/w"\nverify_every = "1d"\n`, 6, /one row of a repository/],
    ["[retention]\nkeep = {}\n", 2, /a table of rules/],
    ['[retention]\nkeep = { wihtin = "30d" }\n', 2, /keep has no member "wihtin"; did you mean within\?$/],
    ['[retention]\nkeep = { keep_wihtin = "30d" }\n', 2, /no member "keep_wihtin"$/],
    ['[retention]\nkeep = { keepWithin = "30d" }\n', 2, /keep has no member "keepWithin"/],
    ["[retention]\nkeep = { within_hourly = 7 }\n", 2, /keep: .*within_hourly/],
    ['[retention]\nkeep = { last = "many" }\n', 2, /keep/],
    ['[retention]\nkeep = { within = "soon" }\n', 2, /keep/],
    ['[alarm]\non_failure = "ftp://host/"\n', 2, /on_failure: .* command for the shell, or an http\(s\) URL/],
    ["[alarm]\non_failure = 1\n", 2, /on_failure: must be a text/],
    ['[backend]\ndata_root = "data"\n', 2, /an absolute path/],
    ["[constructor]\n", 1, /no table/],
    ["[socket]\nvalueOf = 1\n", 2, /no key/],
    ['[loop]\nsize = ["30GiB"]\n', 2, /size: must be/],
    ["[retention]\nkeep = { last = 0 }\n", 2, /at least the last/],
    ['[http]\nlisten = "7777"\n', 2, /must be HOST:PORT/],
    ['[socket]\ncalls = 1\n[http]\nlisten = "0.0.0.0:1"\n', 4, /can be reached from other machines/],
    ['[http]\nlisten = "127.0.0.1:1"\nkey = "/k"\n', 3, /a key needs a certificate/],
    ['[http]\nkey = "/k"\ncertificate = "/c"\n', 3, /a certificate needs `listen`/],
    ['[socket]\nagents = "nobody"\n', 2, /a list of users/],
    ['[socket]\nagents = ["root"]\n', 2, /other than root/],
    ['[socket]\nagents = ["no such user"]\n', 2, /there is no no such user/],
    ['[backend]\ntype = "plain"\ntype = "plain"\n', 3, /./],
  ] as const)
    assert.throws(
      () => parseConfig(text, "/etc/c.toml"),
      (error: Error & { code: string }) => {
        assert.equal(error.code, "usage");
        assert.match(error.message, new RegExp(`c\\.toml, line ${line}: `), text);
        assert.match(error.message, problem, text);
        return true;
      },
    );
});
