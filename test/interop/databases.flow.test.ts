import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { buildCommand, cairn, cairnOk, ROOT, SCRATCH } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { newRepository } from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";

/** The recipes of docs/databases.md, with real servers that an unprivileged user runs in a scratch folder. */

process.env["PATH"] += `:/usr/sbin:/usr/lib/postgresql/15/bin`;
const isRoot = process.geteuid?.() === 0;

function whyNot(...programs: string[]): string | false {
  const missing = programs.filter((name) => spawnSync("sh", ["-c", `command -v ${name}`]).status !== 0);
  if (missing.length > 0) return `${missing.join(", ")} is not installed`;
  return isRoot || process.geteuid === undefined ? false : "needs root, which becomes an unprivileged user";
}

/** The blocks of shell commands below a heading of the page. */
function recipe(heading: string): string[] {
  const page = fs.readFileSync(path.join(ROOT, "docs/databases.md"), "utf8");
  const section = page.split(/^## /m).find((each) => each.startsWith(`${heading}\n`))!;
  return [...section.matchAll(/^```sh\n([^]*?)^```$/gm)].map((match) => match[1]!);
}

interface Server {
  place: string;
  /** Runs a program as the server's user. */
  asServer(words: string[]): void;
  start(words: string[], isUp: () => boolean): Promise<void>;
  stop(): Promise<void>;
}

function server(t: TestContext): Server {
  const place = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-server-"));
  fs.chmodSync(place, 0o755);
  fs.chownSync(place, ORDINARY_USER, ORDINARY_USER);
  const prefix = [`--reuid=${ORDINARY_USER}`, `--regid=${ORDINARY_USER}`, "--clear-groups", "--"];
  let child: ChildProcess | null = null;
  const stop = async (): Promise<void> => {
    if (child === null) return;
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    await ended;
    child = null;
  };
  t.after(async () => {
    await stop();
    fs.rmSync(place, { recursive: true, force: true });
  });
  return {
    place,
    asServer: (words) => void execFileSync("setpriv", [...prefix, ...words], { cwd: place, stdio: "pipe" }),
    async start(words, isUp) {
      const log = fs.openSync(path.join(place, "log"), "a");
      child = spawn("setpriv", [...prefix, ...words], { cwd: place, stdio: ["ignore", log, log] });
      child.once("exit", () => (child = null));
      await eventually("the server", () => {
        assert.notEqual(child, null, fs.readFileSync(path.join(place, "log"), "utf8"));
        return isUp();
      });
    },
    stop,
  };
}

const isOk = (program: string, ...words: string[]): boolean => spawnSync(program, words).status === 0;
const said = (program: string, ...words: string[]): string => execFileSync(program, words, { encoding: "utf8" }).trim();

interface Shop {
  folder: string;
  /** Runs a block of the page. */
  run(block: string): void;
  refusesWithout(server: Server): Promise<void>;
}

async function shop(name: string, replaced: Record<string, string> = {}): Promise<Shop> {
  const folder = newFolder(name);
  fs.writeFileSync(path.join(folder, "catalogue"), "wool\n");
  cairnOk(["save", folder]);
  const { location, passwordFile } = await newRepository(`${name}-repository`);
  const bin = path.join(SCRATCH, "bin");
  fs.mkdirSync(bin, { recursive: true });
  fs.writeFileSync(path.join(bin, "cairn"), `#!/bin/sh\nexec '${process.execPath}' '${buildCommand()}' "$@"\n`, {
    mode: 0o755,
  });
  const back = path.join(SCRATCH, `${name}-back`);
  const env = { CAIRN_REPOSITORY: location, CAIRN_PASSWORD_FILE: passwordFile };
  return {
    folder,
    run(block) {
      let text = block.replaceAll("/srv/shop", folder).replaceAll("/srv/back", back);
      for (const [from, to] of Object.entries(replaced)) text = text.replaceAll(from, to);
      const PATH = `${bin}:${process.env["PATH"]}`;
      const done = spawnSync("sh", ["-e", "-c", text], {
        cwd: SCRATCH,
        env: { ...process.env, ...env, PATH },
        encoding: "utf8",
      });
      assert.equal(done.status, 0, `${text}\n${done.stdout}\n${done.stderr}`);
    },
    async refusesWithout(at) {
      await at.stop();
      const count = (): number => (cairnOk(["backup", "list"], { env }).data["snapshots"] as unknown[]).length;
      const before = count();
      const refused = cairn(["backup", "create", folder], { env });
      assert.deepEqual([refused.status, refused.error?.code], [7, "refused"]);
      assert.match(
        refused.error!.message,
        /nothing was saved, because the command before the backup of .* failed with status \d+: ./,
      );
      assert.deepEqual([count(), fs.readdirSync(folder)], [before, ["catalogue"]]);
    },
  };
}

test(
  "the recipe for PostgreSQL brings two databases and the roles to a new server",
  { skip: whyNot("postgres", "initdb", "pg_dump") },
  async (t) => {
    const env = { PGUSER: "postgres", PGHOST: "" };
    const begun = async (): Promise<Server> => {
      const at = server(t);
      const data = path.join(at.place, "data");
      at.asServer(["initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]);
      Object.assign(process.env, env, { PGHOST: at.place });
      await at.start(["postgres", "-D", data, "-k", at.place, "-c", "listen_addresses=", "-F"], () =>
        isOk("pg_isready", "-q"),
      );
      return at;
    };
    const sql = (database: string, text: string): string =>
      said("psql", "-X", "-v", "ON_ERROR_STOP=1", "-Atd", database, "-c", text);
    const one = await begun();
    sql("postgres", "create role clerk login");
    for (const name of ["shop", "orders"]) {
      sql("postgres", `create database ${name}`);
      sql(name, "create table item as select i, md5(i::text) t from generate_series(1, 20000) i");
      sql(name, "grant select on item to clerk");
    }
    const here = await shop("postgres");
    const [back, restore] = recipe("PostgreSQL");
    here.run(back!);
    assert.deepEqual(fs.readdirSync(here.folder), ["catalogue"]);
    const sum = "select count(*), md5(string_agg(t, '' order by i)) from item";
    const sums = ["shop", "orders"].map((name) => sql(name, sum));
    await here.refusesWithout(one);
    await begun();
    here.run(restore!);
    assert.deepEqual(
      ["shop", "orders"].map((name) => sql(name, sum)),
      sums,
    );
    assert.equal(sql("shop", "select has_table_privilege('clerk', 'item', 'select')"), "t");
  },
);

test(
  "the recipe for MariaDB brings a database to a new server",
  { skip: whyNot("mariadbd", "mariadb-install-db", "mariadb-dump") },
  async (t) => {
    const home = process.env["HOME"]!;
    fs.mkdirSync(home, { recursive: true });
    const begun = async (): Promise<Server> => {
      const at = server(t);
      const [data, socket] = [path.join(at.place, "data"), path.join(at.place, "sock")];
      at.asServer([
        "mariadb-install-db",
        "--no-defaults",
        `--datadir=${data}`,
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
      ]);
      fs.writeFileSync(path.join(home, ".my.cnf"), `[client]\nuser=root\nsocket=${socket}\n`);
      const words = [`--datadir=${data}`, `--socket=${socket}`, "--skip-networking", `--pid-file=${at.place}/pid`];
      await at.start(["mariadbd", "--no-defaults", ...words], () => isOk("mariadb-admin", "ping"));
      return at;
    };
    const sql = (text: string): string => said("mariadb", "-N", "-e", text);
    const one = await begun();
    sql("create database shop; use shop; create table item as select seq i, md5(seq) t from seq_1_to_20000");
    const here = await shop("mariadb");
    const [back, restore] = recipe("MariaDB");
    here.run(back!);
    const sum = "select count(*), sum(crc32(t)) from shop.item";
    const before = sql(sum);
    await here.refusesWithout(one);
    await begun();
    here.run(restore!);
    assert.equal(sql(sum), before);
  },
);

test(
  "the recipe for Redis brings all keys to a new server",
  { skip: whyNot("redis-server", "redis-cli") },
  async (t) => {
    const at = server(t);
    const socket = path.join(at.place, "sock");
    const begin = async (): Promise<void> =>
      at.start(["redis-server", "--port", "0", "--unixsocket", socket, "--dir", at.place, "--save", ""], () =>
        isOk("redis-cli", "-s", socket, "ping"),
      );
    const redis = (...words: string[]): string => said("redis-cli", "-s", socket, ...words);
    await begin();
    redis("eval", "for i=1,20000 do redis.call('set', 'key:'..i, redis.sha1hex(i)) end", "0");
    const before = redis("debug", "digest");
    const here = await shop("redis", { "/run/redis/redis-server.sock": socket, "/var/lib/redis": at.place });
    const [back, restore] = recipe("Redis");
    here.run(back!);
    await here.refusesWithout(at);
    here.run(restore!);
    fs.chownSync(path.join(at.place, "dump.rdb"), ORDINARY_USER, ORDINARY_USER);
    await begin();
    assert.deepEqual([redis("dbsize"), redis("debug", "digest")], ["20000", before]);
  },
);
