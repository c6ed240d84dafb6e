import assert from "node:assert/strict";
import { test } from "node:test";
import { parseConfig } from "./config.ts";

test("a configuration is read with its defaults", () => {
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

test("what is wrong in a configuration is named with its line", () => {
  for (const [text, line, problem] of [
    ["[backend\n", 1, /./],
    ["[backend]\n\ntype = 3\n", 3, /type: is to be one of/],
    ["[bakend]\n", 1, /no table \[bakend\]/],
    ['\n[backend]\ntipe = "plain"\n', 3, /no key "tipe"/],
    ["backend = 1\n", 1, /to be a table/],
    ['[loop]\nsize = "big"\n', 2, /size such as/],
    ["[loop]\nsize = 0\n", 2, /size such as/],
    ["[loop]\npercent_of_disk = 101\n", 2, /from 1 to 100/],
    ['[retention]\nevery = "1ms"\n', 2, /a time/],
    ['[retention]\nevery = "99d"\n', 2, /a time/],
    ["[retention]\nkeep = {}\n", 2, /a table of rules/],
    ['[retention]\nkeep = { last = "many" }\n', 2, /keep/],
    ['[retention]\nkeep = { within = "soon" }\n', 2, /keep/],
    ['[backend]\ndata_root = "data"\n', 2, /an absolute path/],
    ["[constructor]\n", 1, /no table/],
    ["[socket]\nvalueOf = 1\n", 2, /no key/],
    ['[loop]\nsize = ["30GiB"]\n', 2, /size: is to be/],
    ["[retention]\nkeep = { last = 0 }\n", 2, /at least the last/],
    ['[http]\nlisten = "7777"\n', 2, /wants HOST:PORT/],
    ['[socket]\ncalls = 1\n[http]\nlisten = "0.0.0.0:1"\n', 4, /can be reached from other machines/],
    ['[http]\nlisten = "127.0.0.1:1"\nkey = "/k"\n', 3, /a key goes with its certificate/],
    ['[http]\nkey = "/k"\ncertificate = "/c"\n', 3, /there is no `listen`/],
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
