import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { connect, type PageClient, type ServiceEvent } from "../../src/client-browser.ts";
import { cairnOk, SCRATCH } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { fetchPage, start } from "../fixtures/ui.ts";

/** The page's server, as the command that people start, called by the page's own client. */

async function signIn(url: string): Promise<{ response: Response; client: PageClient }> {
  const { origin, hash } = new URL(url);
  const body = JSON.stringify({ code: hash.slice("#code=".length) });
  const response = await fetchPage(`${origin}/session`, { method: "POST", body });
  const { token = "" } = (await response.json()) as { token?: string };
  return { response, client: connect({ url: origin, token, fetch: fetchPage }) };
}

/** Events from now on. */
async function follow(client: PageClient): Promise<AsyncGenerator<ServiceEvent | "open", void>> {
  const events = client.events();
  assert.equal((await events.next()).value, "open");
  return events;
}

async function nextOf<T extends ServiceEvent["type"]>(
  events: AsyncGenerator<ServiceEvent | "open", void>,
  type: T,
): Promise<ServiceEvent & { type: T }> {
  for (;;) {
    const { value } = await events.next();
    if (typeof value === "object" && value.type === type) return value as ServiceEvent & { type: T };
    if (value === undefined) assert.fail("the events ended");
  }
}

function workspace(name: string): string {
  const folder = path.join(SCRATCH, name);
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "a.txt"), "one\n");
  return folder;
}

async function contentOf(client: PageClient, url: string, as: object): Promise<string> {
  const { url: at } = await client.ticket(as as never);
  return (await fetchPage(new URL(at, url))).text();
}

test("the page reads, restores and gets an event of another process's save, and Ctrl-C ends its server", async (t) => {
  const folder = workspace("page");
  cairnOk(["save", folder, "-m", "first"]);
  const ui = await start(t, [folder, "--no-open", "--json"]);
  const { data } = JSON.parse(ui.said()) as { data: object };
  assert.deepEqual(data, { url: ui.url, path: folder, read_only: false });
  const { client } = await signIn(ui.url);
  const about = await client.about();
  assert.deepEqual([about.start, about.read_only, about.daemon], [folder, false, false]);
  assert.deepEqual(
    (await client.call("listWorkspaces", {})).map((each) => each.path),
    [folder],
  );
  const events = await follow(client);
  fs.writeFileSync(path.join(folder, "a.txt"), "two\n");
  const saved = cairnOk(["save", folder, "-m", "second"]).data["save_point"] as { save_point_id: string };
  const heard = await nextOf(events, "save");
  assert.deepEqual([heard.data.save_point_id, heard.workspace], [saved.save_point_id, folder]);
  assert.deepEqual(heard.data.changes, { added: 0, modified: 1, removed: 0 });
  const { save_points: points } = await client.call("history", { workspace: folder });
  assert.deepEqual(
    points.map(({ message }) => message),
    ["second", "first"],
  );
  const target = points[1]!.save_point_id;
  const pieces: Uint8Array[] = [];
  for await (const piece of client.stream("read", { workspace: folder, target, path: "a.txt" })) pieces.push(piece);
  assert.equal(Buffer.concat(pieces).toString(), "one\n");
  const file = { workspace: folder, target, path: "a.txt", as: "file", name: "a.txt" };
  assert.equal(await contentOf(client, ui.url, file), "one\n");
  for (const [from, at] of [
    [target, "../page/a.txt"],
    [null, "../page/a.txt"],
    [target, "/etc/hostname"],
    [null, "/etc/hostname"],
  ] as const) {
    const { url } = await client.ticket({ ...file, as: "file", target: from, path: at });
    assert.equal((await fetchPage(new URL(url, ui.url))).status, 400, at);
  }
  const { url: archive } = await client.ticket({ ...file, path: "", as: "zip", paths: ["a.txt"] });
  const zip = Buffer.from(await (await fetchPage(new URL(archive, ui.url))).arrayBuffer());
  assert.ok(zip.subarray(0, 2).equals(Buffer.from("PK")) && zip.includes("a.txt"));
  const restored = await client.call("restore", { workspace: folder, options: { target } });
  assert.equal(fs.readFileSync(path.join(folder, "a.txt"), "utf8"), "one\n");
  assert.equal((await nextOf(events, "restore")).data.undo_id, restored.undo_id);
  await assert.rejects(client.call("show", { workspace: folder, target: "never" }), {
    name: "CairnError",
    code: "invalid_id",
  });
  assert.equal(await ui.end(), 0);
  await assert.rejects(nextOf(events, "reset"), { code: "io", retryable: true });
  await assert.rejects(client.about(), { code: "io" });
});

test("the page of cairn ui --read-only changes nothing", async (t) => {
  const folder = workspace("looks");
  cairnOk(["save", folder]);
  const ui = await start(t, [folder, "--no-open", "--read-only"]);
  const { client } = await signIn(ui.url);
  await assert.rejects(client.call("save", { workspace: folder }), { code: "refused", hint: /--read-only/ });
  const to = path.join(SCRATCH, "copied");
  await assert.rejects(client.call("exportPoint", { workspace: folder, target: "latest", to }), { code: "refused" });
  assert.equal(fs.existsSync(to), false);
  assert.equal((await client.call("status", { workspace: folder })).clean, true);
  assert.equal(await ui.end("SIGTERM"), 0);
});

test("cairn ui gives the browser a one-time code in a private file, and removes the file", async (t) => {
  const runtime = path.join(SCRATCH, "runtime");
  const folder = path.join(runtime, "cairn", "ui");
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(SCRATCH, "xdg-open"), "#!/bin/sh\n", { mode: 0o755 });
  const env = { DISPLAY: ":9", XDG_RUNTIME_DIR: runtime, PATH: `${SCRATCH}:${process.env["PATH"]}` };
  const files = (): string[] => fs.readdirSync(folder).map((name) => path.join(folder, name));
  const ui = await start(t, [], env);
  const [file] = files();
  const html = fs.readFileSync(file!, "utf8");
  const address = /url=(http:[^"]*)"/.exec(html)![1]!;
  assert.equal(fs.statSync(file!).mode & 0o777, 0o600);
  assert.notEqual(address, ui.url, "each code is another");
  const line = fs.readFileSync(`/proc/${ui.child.pid}/cmdline`, "latin1");
  assert.ok(!line.includes("code="));
  assert.equal((await signIn(address)).response.status, 200);
  assert.deepEqual(files(), []);
  assert.equal((await signIn(address)).response.status, 403, "used");
  assert.equal(await ui.end(), 0);

  const stopped = await start(t, [], env);
  assert.equal(files().length, 1);
  assert.equal(await stopped.end(), 0);
  assert.deepEqual(files(), []);

  const killed = await start(t, [], env);
  await killed.end("SIGKILL");
  const left = files();
  assert.equal(left.length, 1);
  const next = await start(t, [], env);
  assert.ok(files().length === 1 && !files().includes(left[0]!), "what a killed one left is gone");
  const quiet = await start(t, ["--no-open"], env);
  assert.equal(files().length, 1);
  await Promise.all([next.end(), quiet.end()]);
});

test("cairn ui over SSH prints the command for a tunnel and opens no browser", async (t) => {
  const env = {
    SSH_CONNECTION: "10.0.0.1 5000 10.0.0.2 2222",
    DISPLAY: ":9",
    XDG_RUNTIME_DIR: path.join(SCRATCH, "far"),
  };
  const ui = await start(t, [], env);
  const { port } = new URL(ui.url);
  assert.match(ui.said(), new RegExp(`ssh -p 2222 -L ${port}:127\\.0\\.0\\.1:${port} \\w+@10\\.0\\.0\\.2`));
  assert.equal(fs.existsSync(env.XDG_RUNTIME_DIR), false);
  assert.equal(await ui.end(), 0);
});

test("the page gets events of a daemon, and its calls work again after the daemon restarts", async (t) => {
  const daemon = await new TestDaemon(t).start();
  const folder = workspace("of-daemon");
  cairnOk(["save", folder], daemon.asked);
  const ui = await start(t, [folder, "--no-open"], daemon.asked.env);
  const { client } = await signIn(ui.url);
  assert.equal((await client.about()).daemon, true);
  assert.ok((await client.call("daemon", {})).workspaces.length > 0);
  const events = await follow(client);
  fs.writeFileSync(path.join(folder, "a.txt"), "two\n");
  const saved = await client.call("save", { workspace: folder });
  assert.equal((await nextOf(events, "save")).data.save_point_id, saved.save_point_id);
  await client.call("tag", { workspace: folder, target: "latest", edit: { add: ["t"] } });
  assert.deepEqual((await nextOf(events, "tag")).data.tags, ["t"]);
  for (const at of ["../page/a.txt", "/etc/hostname", "a.txt/../../page/a.txt"])
    await assert.rejects(
      async () => {
        for await (const piece of client.stream("read", { workspace: folder, target: null, path: at }))
          assert.fail(String(piece));
      },
      { code: "usage" },
    );
  const present = { workspace: folder, target: null, path: "a.txt", as: "file", name: "a.txt" };
  assert.equal(await contentOf(client, ui.url, present), "two\n");
  await daemon.stop();
  await assert.rejects(client.call("status", { workspace: folder }), { code: "not_a_workspace" }, "it is the daemon's");
  await daemon.start();
  assert.equal((await client.call("status", { workspace: folder })).clean, true);
  fs.writeFileSync(path.join(folder, "a.txt"), "three\n");
  const later = cairnOk(["save", folder], daemon.asked).data["save_point"] as { save_point_id: string };
  assert.equal((await nextOf(events, "save")).data.save_point_id, later.save_point_id);
  assert.equal(await ui.end(), 0);
});
