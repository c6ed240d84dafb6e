import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { assertPromised } from "../../src/cli/testing-json-keys.ts";
import { CLIENT_VERBS, DAEMON_CALLS, LIBRARY_VERBS } from "../../src/verbs/index.ts";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { eventually } from "../fixtures/eventually.ts";
import { ask, call, open, textOf } from "../fixtures/http.ts";
import { ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";

/** Tokens by which agents and people call a daemon, and what an agent may not do by any way. */

interface Place {
  daemon: TestDaemon;
  /** Holds the workspaces; no other test's. */
  folder: string;
  workspace: string;
  other: string;
}

const CONFIG = '[backend]\ntype = "plain"\n[http]\nlisten = "127.0.0.1:0"\n';

let places = 0;
async function place(t: TestContext, more = ""): Promise<Place> {
  const daemon = new TestDaemon(t);
  daemon.configure(CONFIG + more);
  await daemon.start();
  const folder = path.join(SCRATCH, `tokens-${places++}`);
  const [workspace, other] = ["ws", "other"].map((name) => path.join(folder, name)) as [string, string];
  for (const each of [workspace, other]) {
    fs.mkdirSync(each, { recursive: true });
    fs.writeFileSync(path.join(each, "a"), "one\n");
    cairnOk(["save", each, "-m", "first"], daemon.asked);
  }
  return { daemon, folder, workspace, other };
}

function makeToken({ daemon }: Place, ...options: string[]): string {
  return cairnOk(["service", "token", "create", ...options], daemon.asked).data["token"] as string;
}

const idOf = (token: string): string => token.split("_")[1]!;

test("a token is shown once, listed without its secret, and refused after it was revoked", async (t) => {
  const here = await place(t);
  const { daemon, workspace, other } = here;
  const made = cairnOk(["service", "token", "create", "--workspace", workspace, "--name", "mine"], daemon.asked).data;
  assertPromised("service token create", made);
  const token = made["token"] as string;
  assert.match(token, /^cairn_[0-9a-f]{16}_[0-9a-f]{64}$/);
  const [, , secret] = token.split("_");
  const listed = cairnOk(["service", "token", "list"], daemon.asked);
  assert.deepEqual(Object.keys(listed.data), ["tokens"]);
  assert.ok(!listed.stdout.includes(secret!));
  const file = path.join(daemon.state, "tokens.json");
  assert.equal(fs.statSync(file).mode & 0o777, 0o600);
  assert.ok(!fs.readFileSync(file, "utf8").includes(secret!));
  assert.equal((await call(daemon.url, "status", { workspace }, token))[0], 200);
  assert.deepEqual(await call(daemon.url, "status", { workspace: other }, token), [403, "permission"]);
  assert.equal((await call(daemon.socket, "status", { workspace }, token))[0], 200);
  assert.deepEqual(
    await call(daemon.socket, "status", { workspace: other }, token),
    [403, "permission"],
    "a token narrows on the socket, too",
  );
  await daemon.stop();
  await daemon.start();
  assert.equal((await call(daemon.url, "status", { workspace }, token))[0], 200, "it outlives a restart");
  const revoked = cairnOk(["service", "token", "revoke", idOf(token)], daemon.asked).data;
  assertPromised("service token revoke", revoked);
  assert.equal((await call(daemon.url, "status", { workspace }, token))[0], 401);
  await daemon.stop();
  await daemon.start();
  assert.equal((await call(daemon.url, "status", { workspace }, token))[0], 401);
  assert.ok(!daemon.log.includes(secret!));
});

test("service token create refuses invalid workspaces, names and lifetimes", async (t) => {
  const here = await place(t);
  const { daemon, workspace } = here;
  const refused = (...options: string[]): unknown =>
    cairn(["service", "token", "create", ...options], daemon.asked).error?.code;
  assert.equal(refused(), "usage", "an agent's names its workspaces");
  assert.equal(refused("--agent", "--person"), "usage");
  assert.equal(refused("--workspace", here.folder), "not_a_workspace", "one above is not meant");
  for (const span of ["0h", "367d", "2y"])
    assert.equal(refused("--workspace", workspace, "--expires", span), "usage", span);
  assert.equal(refused("--workspace", workspace, "--name", "x".repeat(201)), "usage");
  assert.equal(cairn(["service", "token", "revoke", "0123456789abcdef"], daemon.asked).error?.code, "not_found");
  assert.deepEqual(await call(daemon.socket, "tokenCreate", { options: { kind: "root" } }), [400, "usage"]);
  assert.deepEqual(await call(daemon.socket, "tokenCreate", { options: { workspaces: [] } }), [400, "usage"]);
  assert.deepEqual(await call(daemon.socket, "tokenCreate", { options: { kind: "person", uid: 0 } }), [400, "usage"]);
});

/** Calls that an agent may make, with the options that it may give. */
const AGENTS: Readonly<Record<string, string>> = {
  save: "message tags id cause onDetached skipUnchanged reread",
  restore: "target paths keepPresent cause plan",
  planRestore: "target paths keepPresent cause",
  undo: "expected count plan",
  planUndo: "expected count",
  redo: "expected count plan",
  planRedo: "expected count",
  operations: "",
  turns: "session limit",
  rewind: "session paths cause plan strict",
  planRewind: "session paths cause strict",
  restoreLatest: "",
  history: "grep tag since until path all skip changes",
  historyDays: "all",
  findNames: "ignoreCase limit all",
  diffText: "context ignoreWhitespace",
  why: "limit in",
  latestSavePoint: "",
  hasSavePoints: "",
  resolve: "",
  status: "holders",
  due: "",
  diff: "paths",
  show: "limit skip sort reverse",
  walk: "",
  read: "offset length archive paths",
  verify: "deep throwOnDamage",
  shortIds: "",
  policy: "",
  previewCleanup: "retention only",
  fork: "name",
  daemon: "",
  running: "",
  cancel: "",
  pastEvents: "types limit",
  at: "",
  list: "",
  register: "",
};

test("an agent's token allows only the listed calls and options", async (t) => {
  const here = await place(t);
  const { daemon, workspace } = here;
  const token = makeToken(here, "--workspace", workspace);
  const calls = { ...LIBRARY_VERBS, ...CLIENT_VERBS, ...DAEMON_CALLS } as Record<
    string,
    { options: { entries: object } | null }
  >;
  const before = fs.readdirSync(here.folder, { recursive: true }).toSorted();
  for (const [name, { options }] of Object.entries(calls)) {
    const allowed = AGENTS[name]?.split(" ");
    const given = { workspace, path: workspace, target: "head" };
    if (allowed === undefined) {
      const [status, code] = await call(daemon.url, name, given, token);
      assert.ok(
        code === "permission" || (code === "unsupported" && status === 501),
        `${name}: ${status} ${String(code)}`,
      );
      continue;
    }
    for (const option of Object.keys(options?.entries ?? {}).filter((each) => !allowed.includes(each))) {
      if (["lockTimeoutMs", "workspaceName"].includes(option)) continue;
      const asked = await call(daemon.url, name, { ...given, options: { [option]: true } }, token);
      assert.deepEqual(asked, [403, "permission"], `${name} with ${option}`);
    }
  }
  assert.deepEqual(fs.readdirSync(here.folder, { recursive: true }).toSorted(), before);
  await eventually("it is logged", () =>
    daemon.log.includes(`refused an agent: uid 0, token ${idOf(token)}, call pin, workspace ${workspace}: pin`),
  );
});

test("an agent saves, reads, restores and undoes in its own workspace, with the cause tool_call", async (t) => {
  const here = await place(t);
  const { daemon, workspace } = here;
  const token = makeToken(here, "--workspace", workspace);
  const agent = async (name: string, more: object = {}): Promise<unknown> => {
    const [status, data] = await call(daemon.url, name, { workspace, ...more }, token);
    assert.equal(status, 200, `${name}: ${JSON.stringify(data)}`);
    return data;
  };
  const file = path.join(workspace, "a");
  fs.writeFileSync(file, "two\n");
  const { cause } = (await agent("save", { options: { message: "by the agent" } })) as { cause: object };
  assert.deepEqual(cause, { kind: "tool_call" });
  const forged = { workspace, options: { cause: { kind: "person" } } };
  assert.deepEqual(await call(daemon.url, "save", forged, token), [403, "permission"]);
  await agent("restore", { options: { target: "head~1" } });
  assert.equal(fs.readFileSync(file, "utf8"), "one\n");
  await agent("undo");
  assert.equal(fs.readFileSync(file, "utf8"), "two\n");
  for (const name of ["history", "status", "policy", "planRedo", "operations", "turns", "previewCleanup"])
    await agent(name);
  const lines = await ask({
    at: daemon.url,
    path: "/v1/read",
    token,
    headers: { accept: "application/x-ndjson" },
    body: { workspace, target: "head~1", path: "a" },
  });
  assert.match(lines.text, new RegExp(Buffer.from("one\n").toString("base64")));
  // A link in the folder would lead the daemon elsewhere.
  fs.symlinkSync("/etc/passwd", path.join(workspace, "link"));
  const led = { workspace, target: null, path: "link" };
  assert.equal((await call(daemon.url, "read", led, token))[1], "unsupported");
  assert.deepEqual(
    ((await agent("list", { workspace: undefined })) as { path: string }[]).map((each) => each.path),
    [workspace],
  );
  assert.deepEqual(await call(daemon.url, "at", { path: here.other }, token), [403, "permission"]);
});

test("an agent may fork only beside its workspace, and may use the fork afterwards", async (t) => {
  const here = await place(t);
  const { daemon, workspace, folder } = here;
  const token = makeToken(here, "--workspace", workspace);
  const fork = async (to: string): Promise<[number, unknown]> =>
    call(daemon.url, "fork", { workspace, target: "head", path: to }, token);
  const made = `${workspace}-try`;
  for (const to of [
    path.join(folder, "elsewhere"),
    `${workspace}x`,
    path.join(workspace, "inside"),
    `${workspace}-/../../escaped`,
    `${workspace}-a/b`,
    `${workspace}-\u001b[31m`,
    `${workspace}-`,
    `${workspace}/../ws-try`,
  ])
    assert.deepEqual(await fork(to), [403, "permission"], to);
  fs.mkdirSync(`${workspace}-there`);
  assert.deepEqual(await fork(`${workspace}-there`), [409, "already_exists"]);
  fs.symlinkSync(here.other, `${workspace}-link`);
  assert.deepEqual(await fork(`${workspace}-link`), [409, "already_exists"]);
  assert.equal((await fork(made))[0], 200);
  assert.equal(fs.readFileSync(path.join(made, "a"), "utf8"), "one\n");
  await daemon.stop();
  await daemon.start();
  assert.equal((await call(daemon.url, "save", { workspace: made }, token))[0], 200, "also after a restart");
  const another = makeToken(here, "--workspace", here.other);
  assert.deepEqual(await call(daemon.url, "status", { workspace: made }, another), [403, "permission"]);
});

test("a fork whose daemon was killed is whole and served after a restart", async (t) => {
  const here = await place(t);
  const { daemon, workspace } = here;
  const token = makeToken(here, "--workspace", workspace);
  for (const [i, point] of ["daemon.forked", "daemon.fork-served"].entries()) {
    await daemon.stop();
    await daemon.start({ CAIRN_FAILPOINT: point });
    const to = `${workspace}-killed${i}`;
    await assert.rejects(call(daemon.url, "fork", { workspace, target: "head", path: to }, token));
    await daemon.ended();
    await daemon.start();
    await daemon.reconciled();
    assert.equal((await call(daemon.socket, "status", { workspace: to }))[0], 200, point);
    assert.equal((await call(daemon.url, "fork", { workspace, target: "head", path: `${to}-again` }, token))[0], 200);
  }
});

test("a revoked or expired token is refused at once, also on a kept connection and in a running call", async (t) => {
  const here = await place(t);
  const { daemon, workspace } = here;
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  const kept = makeToken(here, "--person");
  const asked = async (token: string): Promise<number> =>
    (await ask({ at: daemon.url, path: "/v1/status", token, agent, body: { workspace } })).status;
  assert.equal(await asked(kept), 200);
  const lasting = await open({
    at: daemon.url,
    path: "/v1/freezeOffer",
    token: kept,
    headers: { accept: "application/x-ndjson" },
    body: { workspace },
  });
  cairnOk(["service", "token", "revoke", idOf(kept)], daemon.asked);
  assert.equal(await asked(kept), 401);
  assert.match(await textOf(lasting), /"schema_version":1/, "it has ended");
  const short = makeToken(here, "--person");
  await daemon.stop();
  const file = path.join(daemon.state, "tokens.json");
  const soon = new Date(Date.now() + 4000).toISOString();
  fs.writeFileSync(file, fs.readFileSync(file, "utf8").replace(/"expires_at":"[^"]*"/, `"expires_at":"${soon}"`));
  await daemon.start();
  assert.equal(await asked(short), 200);
  await eventually("the token expires", async () => (await asked(short)) === 401);
});

test("tokens cannot be made, listed or revoked with a token", async (t) => {
  const here = await place(t);
  const { daemon } = here;
  const person = makeToken(here, "--person");
  for (const name of ["tokenCreate", "tokenList", "tokenRevoke"])
    for (const at of [daemon.url, daemon.socket])
      assert.deepEqual(await call(at, name, { id: idOf(person) }, person), [403, "permission"], name);
  assert.equal((await call(daemon.socket, "tokenList", {}))[0], 200);
});

test("a person's token has its maker's rights; limited to a workspace, it refuses calls that name other paths", async (t) => {
  const here = await place(t);
  const { daemon, workspace, folder } = here;
  const whole = makeToken(here, "--person");
  const narrow = makeToken(here, "--person", "--workspace", workspace);
  const head = { workspace, target: "head" };
  for (const token of [whole, narrow]) {
    assert.equal((await call(daemon.url, "pin", head, token))[0], 200);
    assert.equal((await call(daemon.url, "unpin", head, token))[0], 200);
  }
  const to = path.join(folder, "anywhere");
  assert.deepEqual(await call(daemon.url, "fork", { ...head, path: to }, narrow), [501, "unsupported"]);
  assert.deepEqual(await call(daemon.url, "restore", { workspace, options: { target: "head", to } }, narrow), [
    501,
    "unsupported",
  ]);
  assert.deepEqual(await call(daemon.url, "inspect", { file: "/etc/passwd" }, narrow), [501, "unsupported"]);
  assert.deepEqual(await call(daemon.url, "register", { path: folder }, narrow), [403, "permission"]);
  assert.deepEqual(await call(daemon.url, "reload", {}, narrow), [403, "permission"]);
  assert.deepEqual(await call(daemon.url, "pin", { workspace: here.other, target: "head" }, narrow), [
    403,
    "permission",
  ]);
  // An operand may name another folder, a point of one, or a backup.
  for (const b of [here.other, `${here.other}:latest`, "backup:latest"])
    assert.deepEqual(await call(daemon.url, "diff", { workspace, a: "head", b }, narrow), [403, "permission"], b);
  for (const target of [`${here.other}:latest`, here.other, "backup:latest"])
    assert.deepEqual(await call(daemon.url, "verify", { workspace, target }, narrow), [403, "permission"], target);
  for (const target of ["main:latest", "other:latest"])
    assert.deepEqual(await call(daemon.url, "verify", { workspace, target }, narrow), [400, "invalid_id"], target);
  assert.equal((await call(daemon.url, "diff", { workspace, a: "head", b: here.other }, whole))[0], 200);
  assert.equal((await call(daemon.url, "fork", { ...head, path: to }, whole))[0], 200);
  assert.equal((await call(daemon.url, "status", { workspace: to }, whole))[0], 200, "the fork is served");
  assert.equal((await call(daemon.url, "reload", {}, whole))[0], 200);
});

test("the daemon drops tokens that it cannot read, and refuses to start with tokens of a newer version", async (t) => {
  const here = await place(t);
  const { daemon, workspace } = here;
  const token = makeToken(here, "--person");
  await daemon.stop();
  const file = path.join(daemon.state, "tokens.json");
  const whole = fs.readFileSync(file, "utf8");
  fs.writeFileSync(file, whole.replace('"version":1', '"version":2'));
  assert.equal((await daemon.refused()).error.code, "newer_version");
  assert.equal(fs.readFileSync(file, "utf8"), whole.replace('"version":1', '"version":2'));
  fs.writeFileSync(file, whole.slice(0, -20));
  await daemon.start();
  assert.match(daemon.log, /tokens\.json cannot be read .* tokens that were made before are not valid any more/);
  assert.equal((await call(daemon.url, "status", { workspace }, token))[0], 401);
  assert.equal((await call(daemon.url, "status", { workspace }, makeToken(here, "--person")))[0], 200);
});

test(
  "a user listed as an agent has only an agent's rights on the socket, and sees only their own tokens",
  { skip: whyNoOrdinaryUser() ?? false },
  async (t) => {
    const here = await place(t);
    const { daemon, folder } = here;
    const user = installForOrdinaryUser();
    t.after(() => user.remove());
    const own = path.join(folder, "own");
    fs.mkdirSync(own);
    fs.chownSync(own, ORDINARY_USER, ORDINARY_USER);
    for (const each of [SCRATCH, folder, daemon.folder, daemon.state]) fs.chmodSync(each, 0o755);
    fs.chmodSync(daemon.socket, 0o666);
    const options = user.optionsIn("/");
    const run = (...args: string[]): ReturnType<typeof cairn> =>
      cairn(args, { ...options, own: true, env: { ...options.env, CAIRN_SOCKET: daemon.socket } });
    assert.equal(run("save", own).status, 0);
    const roots = idOf(makeToken(here, "--person"));
    const mine = run("service", "token", "create", "--person");
    assert.equal(mine.status, 0, mine.stderr);
    const tokens = run("service", "token", "list").data["tokens"] as { token_id: string }[];
    assert.deepEqual(
      tokens.map((each) => each.token_id),
      [mine.data["token_id"]],
    );
    assert.equal(run("service", "token", "revoke", roots).error?.code, "not_found");
    assert.equal(run("service", "token", "create", "--workspace", here.workspace).error?.code, "permission");
    const token = mine.data["token"] as string;
    assert.deepEqual(await call(daemon.url, "status", { workspace: here.workspace }, token), [403, "permission"]);
    assert.equal((await call(daemon.url, "status", { workspace: own }, token))[0], 200);
    assert.equal((await call(daemon.url, "inspect", { file: "/etc/shadow" }, token))[1], "unsupported");

    daemon.configure(`${CONFIG}[socket]\nagents = [${ORDINARY_USER}]\n`);
    cairnOk(["service", "reload"], daemon.asked);
    fs.writeFileSync(path.join(own, "b"), "b");
    fs.chownSync(path.join(own, "b"), ORDINARY_USER, ORDINARY_USER);
    assert.equal(run("save", own).status, 0);
    assert.equal(run("-C", own, "history").status, 0);
    for (const line of [
      ["-C", own, "pin", "head"],
      ["-C", own, "tag", "head", "x"],
      ["release", own],
      ["-C", own, "cleanup", "--keep-last", "1"],
      ["service", "unregister", own],
      ["service", "token", "list"],
      ["service", "token", "create", "--person"],
    ])
      assert.equal(run(...line).error?.code, "permission", line.join(" "));
    assert.equal((await call(daemon.url, "pin", { workspace: own, target: "head" }, token))[1], "permission");
    const fork = { workspace: own, target: "head", path: `${own}-try` };
    fs.chmodSync(folder, 0o777);
    assert.equal((await call(daemon.url, "fork", fork, token))[1], "permission", "others may exchange what root makes");
    fs.chmodSync(folder, 0o755);
    assert.equal((await call(daemon.url, "fork", fork, token))[0], 200);
    assert.equal(fs.statSync(fork.path).uid, ORDINARY_USER);
    assert.equal(run("save", fork.path).status, 0, "the fork is its user's");
    await eventually("it is logged", () =>
      daemon.log.includes(`refused an agent: uid ${ORDINARY_USER}, token none, call pin, workspace ${own}`),
    );
  },
);
