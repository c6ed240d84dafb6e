import assert from "node:assert/strict";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { test } from "node:test";
import type { SavePoint } from "../../src/contract/index.ts";
import { cairnOk } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { eventually } from "../fixtures/eventually.ts";
import { ask, call, open } from "../fixtures/http.ts";
import { whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";
import {
  AGENT,
  type Answer,
  type Attack,
  assertUnharmed,
  attacksOn,
  type Body,
  CONFIG,
  done,
  headOf,
  type Here,
  idOf,
  makeToken,
  pinnedOf,
  pointsOf,
  portOf,
  refusalLogged,
  refused,
  rogueAgent,
  sendRaw,
  type Way,
} from "../fixtures/rogue-place.ts";

/**
 * Attacks of an agent that turned against its person, with its token on TCP and with its user on the socket. After each one the
 * daemon serves, every point of before is there, and what was refused is in the log.
 */

// ------------------------------------------------------------------------------------------ by every verb

/** Calls that take, weaken or give away, each as an agent would make it. */
const FORBIDDEN: Record<string, (here: Here) => Body> = {
  unpin: (here) => ({ workspace: here.work, target: pinnedOf(here, here.work) }),
  tag: (here) => ({ workspace: here.work, target: pinnedOf(here, here.work), edit: { remove: ["release"] } }),
  pin: ({ work }) => ({ workspace: work, target: "head" }),
  setPolicy: ({ work }) => ({ workspace: work, policy: { retention: { keepLast: 1 }, quotaBytes: 1 } }),
  release: ({ work }) => ({ workspace: work, options: { deletePoints: true } }),
  recover: ({ work }) => ({ path: work }),
  relocate: ({ work, folder }) => ({ from: work, to: path.join(folder, "elsewhere") }),
  forget: ({ work }) => ({ path: work }),
  setEngine: ({ work }) => ({ workspace: work, engine: "copy" }),
  importTree: ({ work, person }) => ({ workspace: work, tree: person }),
  importDirectory: ({ person, work }) => ({ from: person, to: path.join(work, "x") }),
  exportPoint: ({ work, folder }) => ({ workspace: work, target: "head", to: path.join(folder, "out") }),
  view: ({ work }) => ({ workspace: work, target: "head" }),
  closeView: ({ work }) => ({ workspace: work, viewId: "x" }),
  backupRepository: ({ work }) => ({ workspace: work }),
  setBackupRepository: ({ work }) => ({ workspace: work, location: "/tmp/mine" }),
  hooks: ({ work }) => ({ workspace: work }),
  setHooks: ({ work }) => ({ workspace: work, edit: { beforeSave: "touch /tmp/mine" } }),
  doctor: ({ work }) => ({ workspace: work }),
  seal: ({ work }) => ({ workspace: work }),
  store: ({ work }) => ({ workspace: work }),
  verifyAll: ({ work }) => ({ workspace: work }),
  diffDatabase: ({ work }) => ({ workspace: work, path: "damage", a: "head" }),
  reload: () => ({}),
  reconcile: () => ({}),
  tokenCreate: ({ work }) => ({ options: { kind: "person", workspaces: [work] } }),
  tokenList: () => ({}),
  tokenRevoke: ({ persons }) => ({ id: idOf(persons) }),
  freezeOffer: ({ work }) => ({ workspace: work }),
  freezeBegin: ({ work }) => ({ workspace: work }),
  freezeEnd: () => ({ token: "x" }),
  inspect: () => ({ file: "/etc/shadow" }),
  captureDatabase: ({ secret }) => ({ database: secret, to: "/tmp/x" }),
  restoreDatabase: ({ secret }) => ({ image: "/tmp/x", to: secret }),
};

/** Verbs that nobody has done by a daemon, and words that are no verbs. */
const UNKNOWN: Record<string, string> = {
  run: "unsupported",
  initRepository: "unsupported",
  openRepository: "unsupported",
  createBackup: "unsupported",
  restoreBackup: "unsupported",
  openOrInit: "unsupported",
  prune: "usage",
  forgetSnapshots: "usage",
  addKey: "usage",
  removeKey: "usage",
  constructor: "usage",
  toString: "usage",
};

const BY_VERBS: Attack[] = [
  ...Object.entries(FORBIDDEN).map(([name, bodyOf]) => ({
    name: `calls ${name}`,
    attack: async (here: Here, way: Way) => refused(here, way, name, bodyOf(here)),
  })),
  {
    name: "calls verbs that the daemon does not offer",
    attack: async (here, way) => {
      for (const [name, code] of Object.entries(UNKNOWN))
        await refused(here, way, name, { workspace: here.work }, code);
    },
  },
  {
    name: "runs a cleanup plan that it may only preview",
    attack: async (here, way) => {
      const given = {
        workspace: here.work,
        options: { retention: { keepLast: 1, keepUndo: { count: 0, within: "0d" } } },
      };
      const plan = await done(way, "previewCleanup", given);
      assert.ok(plan.reclaimable_save_points.length > 0, "there is something to lose");
      assert.ok(plan.protected_save_points.includes(pinnedOf(here, here.work)));
      await refused(here, way, "runCleanup", {
        workspace: here.work,
        options: { ...given.options, plan: plan.plan_id },
      });
      const named = { workspace: here.work, options: { only: [pinnedOf(here, here.work)] } };
      await refused(here, way, "previewCleanup", named, "refused");
    },
  },
  {
    name: "makes workspaces of folders of others, of the system and of its own",
    attack: async (here, way) => {
      fs.mkdirSync(path.join(here.home, "new"), { recursive: true });
      fs.chownSync(path.join(here.home, "new"), AGENT, AGENT);
      for (const at of ["/etc", "/", here.person, here.folder, path.join(here.home, "new")])
        await refused(here, way, "register", { path: at });
      const elsewhere = { path: here.work, options: { controlDirectory: path.join(here.work, "control") } };
      await refused(here, way, "register", elsewhere);
    },
  },
  {
    name: "saves with options that an agent may not use",
    attack: async (here, way) => {
      for (const option of [
        { exclude: ["*"] },
        { excludeCaches: true },
        { excludeIfPresent: ["a"] },
        { excludeLargerThan: 1 },
        { crossMounts: true },
        { databases: "auto" },
        { with: ["a=b"] },
        { secrets: false },
        { allow: ["space", "quota"] },
        { workspaceName: "main" },
      ])
        await refused(here, way, "save", { workspace: here.work, options: option });
    },
  },
  {
    name: "restores to other places and by other methods",
    attack: async (here, way) => {
      for (const option of [
        { to: "/etc/cron.d" },
        { to: here.person },
        { method: "exchange" },
        { throughSqlite: true },
      ])
        await refused(here, way, "restore", { workspace: here.work, options: { target: "head", ...option } });
      await refused(here, way, "undo", { workspace: here.work, options: { throughSqlite: true } });
    },
  },
  {
    name: "forges the cause of its point",
    attack: async (here, way) => {
      for (const cause of [{ kind: "person" }, { kind: "schedule" }, { kind: "tool_call", request: "0".repeat(32) }])
        await refused(here, way, "save", { workspace: here.work, options: { cause } });
      const hidden = `{"workspace":${JSON.stringify(here.work)},"options":{"cause":{"kind":"tool_call","__proto__":{"kind":"person"}}}}`;
      const answered = await way.ask({ path: "/v1/save", body: hidden });
      assert.equal(answered.data.cause.kind, "tool_call");
    },
  },
  {
    name: "forks to forbidden paths, existing folders and misleading names",
    attack: async (here, way) => {
      const { work, own, person, folder } = here;
      for (const to of [
        "/etc/x",
        path.join(folder, "person-try"),
        `${person}-try`,
        `${work}-/../../x`,
        `${work}-a/b`,
        `${work}-\n2026 forged`,
        `${work}-`,
        `${work}-${"x".repeat(300)}`,
        path.join(work, "inside"),
        work,
      ])
        await refused(here, way, "fork", { workspace: work, target: "head", path: to });
      fs.mkdirSync(`${work}-there`, { recursive: true });
      const over = await way.ask({
        path: "/v1/fork",
        body: { workspace: work, target: "head", path: `${work}-there` },
      });
      assert.equal(over.code, "already_exists");
      // The folder above is its own, so that it could exchange what root makes there.
      await refused(here, way, "fork", { workspace: own, target: "head", path: `${own}-try` });
    },
  },
  {
    name: "asks for points and names of another workspace of the same control directory",
    attack: async (here, way) => {
      const fork = `${here.work}-seen`;
      const forked = await here.daemon.call("fork", { workspace: here.work, target: "head", path: fork });
      const { name } = (forked as { workspace: { name: string } }).workspace;
      fs.writeFileSync(path.join(fork, "only-in-the-fork"), "secret");
      const saved = await here.daemon.call("save", { workspace: fork });
      const { save_point_id: id } = saved as { save_point_id: string };
      for (const target of [
        id,
        id.slice(0, 8),
        `${name}:latest`,
        `${name}:`,
        `${fork}:latest`,
        `${here.person}:latest`,
      ]) {
        const body = { workspace: here.work, target, path: "" };
        const codes = [
          (await way.ask({ path: "/v1/show", body })).code,
          (await way.ask({ path: "/v1/resolve", body: { workspace: here.work, target } })).code,
          (await way.ask({ path: "/v1/diff", body: { workspace: here.work, a: target } })).code,
          (await way.ask({ path: "/v1/restore", body: { workspace: here.work, options: { target } } })).code,
        ];
        for (const code of codes) assert.match(String(code), /^(?:not_found|invalid_id|permission)$/, target);
      }
      const options = { all: true };
      const found = await way.ask({
        path: "/v1/findNames",
        body: { workspace: here.work, pattern: "only-in", options },
      });
      assert.deepEqual(found.data?.found ?? [], [], found.text);
      await here.daemon.call("release", { workspace: fork, options: { deletePoints: true } });
      fs.rmSync(fork, { recursive: true });
    },
  },
  {
    name: "makes forbidden calls as jobs and with idempotency keys",
    attack: async (here, way) => {
      const { daemon } = here;
      for (const name of ["unpin", "setPolicy", "release", "recover", "relocate", "reconcile"]) {
        const since = daemon.log.length;
        const begun = await way.ask({
          path: `/v1/${name}`,
          body: FORBIDDEN[name]!(here),
          headers: { prefer: "respond-async" },
        });
        assert.equal(begun.status, 202, begun.text);
        let ended: Answer;
        await eventually("the job ends", async () => {
          ended = await way.ask({ method: "GET", path: begun.headers["location"]!, body: "" });
          return ended.data.state === "failed";
        });
        assert.equal(ended!.data.error.code, "permission");
        await refusalLogged(here, since, way, name);
        const keyed = await way.ask({
          path: `/v1/${name}`,
          body: FORBIDDEN[name]!(here),
          headers: { "idempotency-key": `k-${way.name}` + name },
        });
        assert.equal(keyed.code, "permission");
      }
    },
  },
];

// ------------------------------------------------------------------------------------------- as somebody else

const changed = (token: string, at: number): string =>
  token.slice(0, at) + (token[at] === "0" ? "1" : "0") + token.slice(at + 1);

const AS_OTHERS: Attack[] = [
  {
    name: "sends revoked, expired and altered tokens",
    by: "token",
    attack: async (here) => {
      const { daemon, work } = here;
      const [revoked, expired] = [makeToken(daemon, "--person"), makeToken(daemon, "--person")] as [string, string];
      cairnOk(["service", "token", "revoke", idOf(revoked)], daemon.asked);
      await daemon.stop();
      const file = path.join(daemon.state, "tokens.json");
      const text = fs.readFileSync(file, "utf8");
      const own = text.indexOf(idOf(expired));
      const past = text.slice(own).replace(/"expires_at":"[^"]*"/, '"expires_at":"2026-01-01T00:00:00.000Z"');
      fs.writeFileSync(file, text.slice(0, own) + past);
      await daemon.start();
      fs.chmodSync(daemon.socket, 0o666);
      for (const [given, said] of [
        [revoked, `token ${idOf(revoked)}, which is not known or was revoked`],
        [expired, `token ${idOf(expired)}, which has expired`],
        [changed(here.persons, here.persons.length - 1), `a wrong secret for token ${idOf(here.persons)}`],
        [changed(here.persons, 8), "which is not known or was revoked"],
        [`${here.persons}\u00a0`, "with something that is not a token"],
      ] as const)
        for (const at of [daemon.url, daemon.socket]) {
          const since = daemon.log.length;
          const { status, value } = await ask({
            at,
            path: "/v1/unpin",
            token: given,
            body: { workspace: work, target: pinnedOf(here, work) },
          });
          assert.equal(status, 401, said);
          assert.equal(value.error.code, "permission");
          await eventually(said, () => daemon.log.slice(since).includes(said));
        }
      assert.equal((await call(daemon.url, "status", { workspace: work }, here.token))[0], 200);
    },
  },
  {
    name: "uses its token at another daemon",
    by: "token",
    attack: async (here) => {
      const daemon = new TestDaemon(here.t);
      daemon.configure(CONFIG);
      await daemon.start();
      assert.deepEqual(await call(daemon.url, "daemon", {}, here.token), [401, "permission"]);
      await eventually("it is logged", () => daemon.log.includes(`with token ${idOf(here.token)}, which is not known`));
      await daemon.stop();
    },
  },
  {
    name: "uses the token of another workspace, and its own on another workspace",
    attack: async (here, way) => {
      const { daemon, work, person } = here;
      for (const name of [
        "status",
        "history",
        "save",
        "undo",
        "restoreLatest",
        "policy",
        "planUndo",
        "latestSavePoint",
      ])
        await refused(here, way, name, { workspace: person });
      for (const name of ["read", "show", "verify", "restore"])
        await refused(here, way, name, {
          workspace: person,
          ...(name === "restore" ? { options: { target: "head" } } : { target: "head" }),
          ...(name === "read" ? { path: "private" } : {}),
        });
      await refused(here, way, "at", { path: person });
      assert.deepEqual(await call(daemon.url, "save", { workspace: work }, here.others), [403, "permission"]);
    },
  },
  {
    name: "reads lists, metrics, health, events and jobs for data of others",
    attack: async (here, way) => {
      const { daemon, person } = here;
      const seen = [await done(way, "daemon", {}), await done(way, "list", {})];
      for (const at of ["/metrics", "/v1/health", "/v1/jobs"])
        seen.push((await way.ask({ method: "GET", path: at, body: "" })).text);
      assert.ok(!JSON.stringify(seen).includes(person));
      const since = daemon.log.length;
      const stream = await way.ask({ method: "GET", path: `/v1/events?workspace=${person}&after=0`, body: "" });
      assert.equal(stream.code, "permission");
      await refusalLogged(here, since, way, "/v1/events");
    },
  },
  {
    name: "listens to all events, also past ones",
    by: "token",
    attack: async (here) => {
      const { daemon, person, work } = here;
      const heard = await open({
        at: daemon.url,
        method: "GET",
        path: "/v1/events?after=0",
        token: here.token,
        body: "",
      });
      let text = "";
      heard.setEncoding("utf8").on("data", (piece: string) => (text += piece));
      await daemon.call("save", { workspace: person });
      const { save_point_id: mark } = (await daemon.call("save", { workspace: work })) as SavePoint;
      await eventually(`the mark comes: ${text}`, () => text.includes(mark));
      heard.destroy();
      assert.ok(!text.includes(person));
    },
  },
  {
    name: "reads, joins and cancels the jobs of a person",
    attack: async (here, way) => {
      const { daemon, work, persons } = here;
      const key = { "idempotency-key": `turn-${way.name}` };
      const body = { workspace: work, options: { message: "the person's" } };
      const mine = await ask({ at: daemon.url, path: "/v1/save", token: persons, body, headers: key });
      assert.equal(mine.status, 200);
      const begun = await ask({
        at: daemon.url,
        path: "/v1/verifyAll",
        token: persons,
        body: { workspace: work },
        headers: { prefer: "respond-async" },
      });
      const { location } = begun.headers;
      for (const method of ["GET", "DELETE"]) {
        const since = daemon.log.length;
        const answered = await way.ask({ method, path: location!, body: "" });
        assert.equal(answered.code, "not_found");
        await refusalLogged(here, since, way, location!.slice(0, 40));
      }
      const same = await way.ask({ path: "/v1/save", body, headers: key });
      assert.notEqual(same.data.save_point_id, mine.value.data.save_point_id, "the key is another one");
      assert.equal(same.code, null);
      const jobs = await way.ask({ method: "GET", path: "/v1/jobs", body: "" });
      assert.ok(!jobs.text.includes(location!.split("/").at(-1)!));
      let state = "";
      await eventually("the person's job ends", async () => {
        ({ state } = (
          await ask({ at: daemon.url, method: "GET", path: location!, token: persons, body: "" })
        ).value.data);
        return state === "done";
      });
    },
  },
  {
    name: "makes forbidden calls through MCP tools",
    attack: async (here, way) => {
      const { work, person, folder, daemon } = here;
      const tool = async (workspace: string, name: string, given: object): Promise<string> => {
        const answered = await way.ask({
          path: `/mcp?workspace=${encodeURIComponent(workspace)}`,
          headers: { accept: "application/json, text/event-stream", "content-type": "application/json" },
          body: { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: given } },
        });
        assert.equal(answered.status, 200, answered.text);
        return answered.text;
      };
      for (const name of ["unpin", "runCleanup", "release", "tokenCreate", "__proto__"])
        assert.match(await tool(work, name, { target: "head" }), /usage: there is no tool/);
      assert.match(await tool(work, "restore", { target: "head", to: "/etc" }), /usage: /);
      assert.match(await tool(work, "save", { exclude: ["*"] }), /usage: /);
      const since = daemon.log.length;
      for (const name of ["save", "status"]) assert.match(await tool(person, name, {}), /permission: /);
      const elsewhere = { target: "head", path: path.join(folder, "elsewhere") };
      assert.match(await tool(work, "fork", elsewhere), /permission: /);
      for (const name of ["register", "at", "fork"]) await refusalLogged(here, since, way, name);
    },
  },
];

// ------------------------------------------------------------------------------------------ by what is no call

const deep = (depth: number): string => `${'{"a":['.repeat(depth)}1${"]}".repeat(depth)}`;

const BY_REQUESTS: Attack[] = [
  {
    name: "smuggles a request inside another one",
    attack: async (here, way) => {
      const { daemon, work } = here;
      const inner = `POST /v1/unpin HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}`;
      for (const framing of [
        ["Content-Length: 4", "Transfer-Encoding: chunked"],
        ["Content-Length: 0", `Content-Length: ${inner.length}`],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding : chunked"],
        ["Transfer-Encoding: chunked, identity"],
        ["Content-Length: +2"],
        ["X: a\n\nPOST /v1/unpin HTTP/1.1"],
      ]) {
        const since = daemon.log.length;
        const said = await sendRaw(here, way, `${headOf(here, way, ...framing)}\r\n\r\n${inner}`);
        assert.match(said, /^HTTP\/1\.1 4\d\d /, framing.join());
        assert.equal(said.split("HTTP/1.1 ").length, 2, `${framing.join()}: one answer`);
        await eventually("it is logged", () =>
          /refused a request of .*: the request is not HTTP/.test(daemon.log.slice(since)),
        );
      }
      const second = `POST /v1/unpin HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}`;
      const two = await sendRaw(here, way, `${headOf(here, way, "Content-Length: 2")}\r\n\r\n{}${second}`);
      const statuses = [...two.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status);
      assert.deepEqual(statuses, ["200", way.name === "token" ? "401" : "403"], "each is admitted by itself");
      assert.equal((await pointsOf(here, work)).length > 0, true);
    },
  },
  {
    name: "sends request heads and bodies that are too large or cut off",
    attack: async (here, way) => {
      const { daemon, work } = here;
      let since = daemon.log.length;
      const said = await sendRaw(here, way, `${headOf(here, way, `X: ${"x".repeat(20_000)}`)}\r\n\r\n`);
      assert.match(said, /^HTTP\/1\.1 431 /);
      await eventually("it is logged", () =>
        /refused a request of .*: the request's head is too large/.test(daemon.log.slice(since)),
      );
      const large = { workspace: work, options: { message: "x".repeat(2 << 20) } };
      for (const at of ["/v1/save", `/mcp?workspace=${work}`]) {
        since = daemon.log.length;
        assert.equal((await way.ask({ path: at, body: large })).code, "usage");
        await refusalLogged(here, since, way, at.slice(0, 40));
      }
      for (const body of ["", "{", "[]", "null", '"x"', '{"options":[]}', "\u0000", '{"workspace":"/"}{}']) {
        const answered = await way.ask({ path: "/v1/status", body });
        assert.equal(answered.code, "usage", body);
      }
    },
  },
  {
    name: "sends deeply nested JSON and names of inherited members",
    attack: async (here, way) => {
      const { work } = here;
      const cause = (value: string): string =>
        `{"workspace":${JSON.stringify(work)},"options":{"cause":{"kind":"tool_call","x":${value}}}}`;
      for (const depth of [50_000, 5_000, 1_000])
        for (const headers of [{}, { "idempotency-key": `deep-${depth}` }] as Record<string, string>[]) {
          const answered = await way.ask({ path: "/v1/save", body: cause(deep(depth)), headers });
          assert.equal(answered.code, "usage", `${depth}: ${answered.text.slice(0, 300)}`);
        }
      const headers = { accept: "application/json, text/event-stream", "content-type": "application/json" };
      const params = (value: string): string => `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":${value}}`;
      for (const depth of [80_000, 2_000]) {
        const message = params(`{"name":"save","arguments":${deep(depth)}}`);
        const answered = await way.ask({ path: `/mcp?workspace=${work}`, body: message, headers });
        assert.ok(/usage/.test(answered.text) || answered.status === 400, answered.text.slice(0, 300));
      }
      for (const name of ["__proto__", "constructor", "prototype"]) {
        const options = `{"workspace":${JSON.stringify(work)},"options":{"${name}":{"isAgent":false,"exclude":["*"]}}}`;
        assert.equal((await way.ask({ path: "/v1/save", body: options })).code, "permission", name);
        const member = `{"workspace":${JSON.stringify(work)},"${name}":{"uid":0}}`;
        assert.equal((await way.ask({ path: "/v1/save", body: member })).code, "usage", name);
      }
      await refused(here, way, "pin", { workspace: work, target: "head" });
    },
  },
  {
    name: "sends values of wrong types",
    attack: async (here, way) => {
      const { work } = here;
      const bytes = { $b64: Buffer.from(work).toString("base64") };
      for (const workspace of [
        5,
        null,
        [work],
        { path: work },
        bytes,
        "",
        "work",
        "./work",
        `${work}\0`,
        "file:///etc",
      ])
        await refused(here, way, "save", { workspace }, "usage");
      for (const options of [
        { message: {} },
        { message: ["x"] },
        { tags: "x" },
        { tags: [1] },
        { cause: "person" },
        { cause: { kind: ["person"] } },
        { cause: { kind: "tool_call", big: "x".repeat(70_000) } },
        { id: "../../x" },
        { skipUnchanged: "no" },
        { lockTimeoutMs: "x" },
        { id: "head" },
        { id: "latest" },
        { id: pinnedOf(here, work) },
        { signal: {} },
      ])
        assert.match(
          (await way.ask({ path: "/v1/save", body: { workspace: work, options } })).code ?? "done",
          /^(usage|permission|invalid_id|already_exists)$/,
          JSON.stringify(options).slice(0, 100),
        );
      for (const target of [{}, ["head"], 7, null, "../head", "x".repeat(100_000), "head~99999999999", "\0"])
        assert.match(
          (await way.ask({ path: "/v1/show", body: { workspace: work, target } })).code ?? "done",
          /^(usage|not_found|invalid_id)$/,
          JSON.stringify(target).slice(0, 100),
        );
      await refused(here, way, "save", { workspace: work, pinned: true }, "usage");
    },
  },
  {
    name: "names paths that lead out of its workspace",
    attack: async (here, way) => {
      const { work, person, folder, rogue } = here;
      await rogue.run(({ fs: files }, from, to) => files.symlinkSync(to, from), path.join(work, "to-person"), person);
      for (const workspace of [
        `${work}/../person`,
        `${work}/to-person`,
        `${work}/to-person/../person`,
        `/proc/self/root${person}`,
        `/proc/${here.daemon.pid}/root${person}`,
      ])
        await refused(here, way, "status", { workspace });
      for (const workspace of ["/", "/etc", folder, `/proc/self/cwd`, `/${"x/".repeat(3000)}`])
        await refused(here, way, "status", { workspace }, "not_a_workspace");
      for (const at of ["../person/private", "/etc/shadow", "a/../../secret", "to-person/private", "..", "\0"]) {
        const answered = await way.ask({
          path: "/v1/read",
          headers: { accept: "application/x-ndjson" },
          body: { workspace: work, target: "head", path: at },
        });
        assert.ok(!answered.text.includes('"item"'), `${at}: ${answered.text}`);
        assert.match(
          answered.text,
          /"code":"(usage|not_found|refused|unsupported|permission)"/,
          `${at}: ${answered.text}`,
        );
      }
      await rogue.run(({ fs: files }, at) => files.unlinkSync(at), path.join(work, "to-person"));
    },
  },
  {
    name: "sends the headers of a web page",
    by: "token",
    attack: async (here) => {
      for (const headers of [{ origin: "http://evil" }, { "sec-fetch-site": "cross-site" }]) {
        const { status } = await ask({ at: here.daemon.url, path: "/v1/daemon", token: here.token, headers });
        assert.equal(status, 403);
      }
    },
  },
];

/** Requests that never end, for as long as the test lasts. */
function neverEnding(here: Here): () => boolean {
  const [way] = here.ways as [Way];
  const sockets = [
    `${headOf(here, way)}\r\nX: `,
    `${headOf(here, way, "Content-Length: 100000")}\r\n\r\n{`,
    `${headOf(here, way, "Transfer-Encoding: chunked")}\r\n\r\n`,
  ].map((text) => {
    const socket = net.connect(portOf(here), "127.0.0.1", () => socket.write(text));
    return socket.on("error", () => undefined).resume();
  });
  const more = setInterval(() => {
    sockets[0]!.write("x");
    sockets[1]!.write(" ");
    sockets[2]!.write("1\r\n \r\n");
  }, 500);
  here.t.after(() => {
    clearInterval(more);
    for (const socket of sockets) socket.destroy();
  });
  return () => sockets.every(({ closed }) => closed);
}

const reason = whyNoOrdinaryUser();

test(
  "a rogue agent removes no point and sees nothing of others, and the daemon logs each refusal",
  { skip: reason ?? false },
  async (t) => {
    const here = await rogueAgent(t);
    for (const attacks of [BY_VERBS, AS_OTHERS]) await attacksOn(t, here, attacks);
    const never = neverEnding(here);
    await attacksOn(t, here, BY_REQUESTS);
    await t.test("sends requests that never end", async () => {
      await eventually("they have ended", never);
      assert.match(here.daemon.log, /refused a request of .*: the request did not arrive in time/);
      await assertUnharmed(here);
    });
  },
);
