import assert from "node:assert/strict";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { test } from "node:test";
import type { SavePoint } from "../../src/contract/index.ts";
import { cairnOk } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { call } from "../fixtures/http.ts";
import { LONG } from "../fixtures/long.ts";
import { whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";
import {
  AGENT,
  type Attack,
  attacksOn,
  CONFIG,
  done,
  headOf,
  idOf,
  pinnedOf,
  pointsOf,
  portOf,
  refusalLogged,
  refused,
  rogueAgent,
  SECRET,
  sendRaw,
} from "../fixtures/rogue-place.ts";

/** Attacks of a rogue agent by what it puts in its folder, and by how much it asks for. */

// ---------------------------------------------------------------------------------------------- by its folder

const BY_FOLDER: Attack[] = [
  {
    name: "hides everything by ignore rules and deletes files",
    attack: async (here, way) => {
      const { work, rogue } = here;
      await rogue.run(({ fs: files }, at) => files.writeFileSync(`${at}/.cairnignore`, "*\n!.cairnignore\n"), work);
      await done(way, "save", { workspace: work });
      await rogue.run(({ fs: files }, at) => {
        for (const name of ["a", "damage"]) files.rmSync(`${at}/${name}`);
      }, work);
      await done(way, "restore", { workspace: work, options: { target: pinnedOf(here, work) } });
      assert.equal(fs.readFileSync(path.join(work, "a"), "utf8"), "pinned\n");
      assert.equal(fs.existsSync(path.join(work, ".cairnignore")), false);
    },
  },
  {
    name: "makes ignore files that are huge, endless, links or full of wildcards",
    attack: async (here, way) => {
      const { work, rogue, secret } = here;
      const set = (kind: string): Promise<void> =>
        rogue.run(
          ({ fs: files, sh }, at, what, target) => {
            const name = `${at}/.cairnignore`;
            files.rmSync(name, { recursive: true, force: true });
            if (what === "huge") files.truncateSync((files.writeFileSync(name, ""), name), 2 ** 32);
            if (what === "stars")
              files.writeFileSync(name, `${"*a".repeat(2000)}b\n${"**/".repeat(2000)}x\n[[[\n`.repeat(20));
            if (what === "pipe") sh("mkfifo", name);
            if (what === "link") files.symlinkSync(target, name);
            if (what === "folder") files.mkdirSync(name);
            if (what === "device") files.symlinkSync("/dev/zero", name);
          },
          work,
          kind,
          secret,
        );
      await rogue.run(({ fs: files }, at) => files.writeFileSync(`${at}/${"a".repeat(250)}`, ""), work);
      await set("huge");
      await refused(here, way, "save", { workspace: work }, "refused");
      for (const kind of ["stars", "pipe", "link", "folder", "device"]) {
        await set(kind);
        const { save_point_id: target } = await done(way, "save", { workspace: work });
        const { entries } = await done(way, "show", { workspace: work, target });
        assert.ok(
          entries.some((each: { name?: string; path: string }) => each.path === "a"),
          `${kind}: nothing is hidden`,
        );
      }
      await set("");
      await rogue.run(({ fs: files }, at) => files.rmSync(`${at}/${"a".repeat(250)}`), work);
    },
  },
  {
    name: "puts links to others' files into its folder before a save",
    attack: async (here, way) => {
      const { work, rogue, secret, person } = here;
      await rogue.run(
        ({ fs: files }, at, file, folder) => {
          files.symlinkSync(file, `${at}/link`);
          files.symlinkSync(folder, `${at}/folder`);
          files.symlinkSync("/proc/self/environ", `${at}/environ`);
        },
        work,
        secret,
        person,
      );
      await assert.rejects(
        rogue.run(({ fs: files }, at, file) => files.linkSync(file, `${at}/hard`), work, secret),
        { code: "EPERM" },
      );
      const { save_point_id: target } = await done(way, "save", { workspace: work });
      const { entries } = await done(way, "show", { workspace: work, target });
      for (const name of ["link", "folder", "environ"])
        assert.equal(entries.find((each: { path: string }) => each.path === name)?.kind, "symlink", name);
      for (const at of ["link", "folder/private", "environ"]) {
        const headers = { accept: "application/x-ndjson" };
        const answered = await way.ask({ path: "/v1/read", headers, body: { workspace: work, target, path: at } });
        assert.ok(!answered.text.includes('"item"'), `${at}: ${answered.text}`);
      }
      await rogue.run(({ fs: files }, at) => {
        for (const name of ["link", "folder", "environ"]) files.unlinkSync(`${at}/${name}`);
      }, work);
    },
  },
  {
    name: "puts links into its folder before a restore",
    attack: async (here, way) => {
      const { work, rogue, secret, person } = here;
      await rogue.run(({ fs: files }, at) => {
        files.mkdirSync(`${at}/d`);
        files.writeFileSync(`${at}/d/private`, "the agent's\n");
        files.writeFileSync(`${at}/d/secret`, "the agent's\n");
      }, work);
      const { save_point_id: target } = await done(way, "save", { workspace: work });
      await rogue.run(
        ({ fs: files }, at, file, folder) => {
          files.rmSync(`${at}/d`, { recursive: true });
          files.symlinkSync(folder, `${at}/d`);
          files.rmSync(`${at}/a`);
          files.symlinkSync(file, `${at}/a`);
        },
        work,
        secret,
        person,
      );
      await done(way, "restore", { workspace: work, options: { target } });
      assert.ok(fs.lstatSync(path.join(work, "d")).isDirectory());
      assert.ok(fs.lstatSync(path.join(work, "a")).isFile());
      await done(way, "restore", { workspace: work, options: { target: pinnedOf(here, work) } });
    },
  },
  {
    name: "hard-links an outside file before a restore sets owner and mode",
    attack: async (here, way) => {
      const { work, rogue, folder } = here;
      // One that the agent may write to, as a file of its group: it may give that another name.
      const outside = path.join(folder, `shared-${way.name}`);
      const content = fs.readFileSync(path.join(work, "a"));
      fs.writeFileSync(outside, content);
      fs.chmodSync(outside, 0o666);
      const { save_point_id: target } = await done(way, "save", { workspace: work });
      await rogue.run(
        ({ fs: files }, at, file) => {
          files.rmSync(`${at}/a`);
          files.linkSync(file, `${at}/a`);
        },
        work,
        outside,
      );
      await done(way, "restore", { workspace: work, options: { target } });
      assert.equal(fs.statSync(path.join(work, "a")).uid, AGENT);
      const { uid, mode, nlink } = fs.statSync(outside);
      assert.deepEqual({ uid, mode: mode & 0o777, nlink }, { uid: 0, mode: 0o666, nlink: 1 });
    },
  },
  {
    name: "swaps a folder and a link during saves and restores",
    attack: async (here, way) => {
      const { work, rogue, person } = here;
      await rogue.run(
        ({ fs: files }, at, folder) => {
          files.mkdirSync(`${at}/d`);
          for (let i = 0; i < 20; i++) files.writeFileSync(`${at}/d/f${i}`, "x");
          files.symlinkSync(folder, `${at}/l`);
        },
        work,
        person,
      );
      const { save_point_id: target } = await done(way, "save", { workspace: work });
      let isOver = false;
      const swapping = (async () => {
        while (!isOver)
          await rogue.run(({ fs: files }, at) => {
            for (const end = performance.now() + 20; performance.now() < end;) {
              try {
                files.renameSync(`${at}/d`, `${at}/t`);
                files.renameSync(`${at}/l`, `${at}/d`);
                files.renameSync(`${at}/d`, `${at}/l`);
                files.renameSync(`${at}/t`, `${at}/d`);
              } catch {
                return;
              }
            }
          }, work);
      })();
      const made: string[] = [];
      for (let i = 0; i < 6; i++) {
        for (const name of ["save", "restore"]) {
          const options = name === "restore" ? { target } : {};
          const answered = await way.ask({ path: `/v1/${name}`, body: { workspace: work, options } });
          if (name === "save" && answered.code === null) made.push(answered.data.save_point_id);
          assert.notEqual(answered.code, "internal", answered.text);
        }
      }
      isOver = true;
      await swapping;
      assert.ok(made.length > 0);
      for (const each of made) {
        const lines = await way.ask({
          path: "/v1/walk",
          headers: { accept: "application/x-ndjson" },
          body: { workspace: work, target: each },
        });
        assert.ok(!lines.text.includes('/private"'), "no point has what lies behind the link");
      }
      await rogue.run(({ fs: files }, at) => {
        for (const name of ["d", "l", "t"]) files.rmSync(`${at}/${name}`, { recursive: true, force: true });
      }, work);
    },
  },
  {
    name: "fills its folder with pipes, sockets and names that look like log lines",
    attack: async (here, way) => {
      const { work, rogue, daemon } = here;
      const since = daemon.log.length;
      await rogue.run(async ({ fs: files, net: sockets, sh }, at) => {
        sh("mkfifo", `${at}/pipe`);
        files.writeFileSync(`${at}/x\nrefused an agent: uid 4711, token none, call forged`, "");
        files.writeFileSync(`${at}/\u001b[2J`, "");
        let deepest = at;
        for (let i = 0; i < 60; i++) files.mkdirSync((deepest += `/${"d".repeat(50)}`));
        await new Promise<void>((listening) => {
          const server = sockets.createServer().listen(`${at}/socket`, () => listening());
          server.unref();
        });
      }, work);
      const { save_point_id: target } = await done(way, "save", { workspace: work });
      const { entries } = await done(way, "show", { workspace: work, target });
      assert.ok(entries.some((each: { kind: string }) => each.kind === "fifo"));
      await done(way, "restore", { workspace: work, options: { target: pinnedOf(here, work) } });
      const forged = { workspace: `${work}\nrefused an agent: uid 4711` };
      await refused(here, way, "status", forged, "not_a_workspace");
      for (const line of daemon.log.slice(since).split("\n"))
        assert.doesNotMatch(line, /^refused an agent: uid 4711|\u001b/);
    },
  },
  {
    name: "replaces its workspace with a link",
    attack: async (here, way) => {
      const { own, home, person, rogue } = here;
      const before = (await pointsOf(here, own)).length;
      for (const target of ["/etc", person, here.folder]) {
        await rogue.run(
          ({ fs: files }, at, to) => {
            files.renameSync(at, `${at}.away`);
            files.symlinkSync(to, at);
          },
          own,
          target,
        );
        for (const name of ["save", "undo", "restoreLatest"])
          await refused(here, way, name, { workspace: own }, target === person ? "permission" : "not_a_workspace");
        await rogue.run(({ fs: files }, at) => {
          files.unlinkSync(at);
          files.renameSync(`${at}.away`, at);
        }, own);
      }
      assert.equal((await pointsOf(here, own)).length, before);
      assert.deepEqual(fs.readdirSync(home).includes("own"), true);
    },
  },
  {
    name: "replaces its workspace with a link while the daemon saves automatically",
    by: "uid",
    attack: async (here) => {
      const { own, rogue, daemon, person } = here;
      const before = (await pointsOf(here, own)).map((each) => each.save_point_id);
      daemon.configure(`${CONFIG}[saves]\nat_most_every = "1s"\n`);
      await rogue.run(
        ({ fs: files }, at, to) => {
          files.writeFileSync(`${at}/changed`, "x");
          files.renameSync(at, `${at}.away`);
          files.symlinkSync(to, at);
        },
        own,
        person,
      );
      const since = daemon.log.length;
      await daemon.call("reload");
      await eventually("a save was tried", () => daemon.log.slice(since).includes(own));
      await rogue.run(({ fs: files }, at) => {
        files.unlinkSync(at);
        files.renameSync(`${at}.away`, at);
      }, own);
      daemon.configure(CONFIG);
      await daemon.call("reload");
      for (const { save_point_id: target } of await pointsOf(here, own)) {
        if (before.includes(target)) continue;
        const { entries } = (await daemon.call("show", { workspace: own, target })) as { entries: { path: string }[] };
        assert.ok(!entries.some((each) => each.path === "private"));
      }
    },
  },
  {
    name: "replaces its workspace with another folder",
    attack: async (here, way) => {
      const { own, rogue } = here;
      const aside = `${own}.away-${way.name}`;
      await rogue.run(
        ({ fs: files }, at, to) => {
          files.renameSync(at, to);
          files.mkdirSync(at);
          files.writeFileSync(`${at}/other`, "another folder\n");
        },
        own,
        aside,
      );
      await way.ask({ path: "/v1/save", body: { workspace: own } });
      await rogue.run(
        ({ fs: files }, at, to) => {
          files.rmSync(at, { recursive: true });
          files.renameSync(to, at);
        },
        own,
        aside,
      );
      const head = pinnedOf(here, own);
      await done(way, "restore", { workspace: own, options: { target: head } });
      assert.equal(fs.readFileSync(path.join(own, "a"), "utf8"), "pinned\n");
    },
  },
  {
    name: "tries to change the daemon's own files",
    by: "uid",
    attack: async ({ daemon, rogue, work }) => {
      const { control_directory: control } = (await daemon.call("at", { path: work })) as never as Record<
        string,
        string
      >;
      const served = daemon.stateNow().workspaces.find((each) => each.path === work)!.control_directory;
      assert.ok(control === undefined || control === served);
      const tried = await rogue.run(
        ({ fs: files }, kept, state, config, socket, pid) => {
          const attempts: Record<string, () => void> = {
            list: () => files.readdirSync(kept),
            make: () => files.writeFileSync(`${kept}/mine`, ""),
            away: () => files.renameSync(kept, `${kept}.away`),
            mode: () => files.chmodSync(kept, 0o777),
            remove: () => files.rmSync(kept, { recursive: true }),
            state: () => files.appendFileSync(`${state}/state.json`, "x"),
            tokens: () => files.readFileSync(`${state}/tokens.json`),
            records: () => files.readFileSync(`${state}/records.db`),
            config: () => files.appendFileSync(config, "x"),
            socket: () => files.unlinkSync(socket),
            memory: () => files.readFileSync(`/proc/${pid}/environ`),
            kill: () => process.kill(pid, "SIGKILL"),
          };
          return Object.entries(attempts).map(([name, attempt]) => {
            try {
              attempt();
              return `${name}: done`;
            } catch (error) {
              return (error as NodeJS.ErrnoException).code;
            }
          });
        },
        served,
        daemon.state,
        daemon.config,
        daemon.socket,
        daemon.pid,
      );
      for (const each of tried) assert.match(String(each), /^(EACCES|EPERM)$/);
    },
  },
  {
    name: "reads files of its points that its user may not read",
    by: "uid",
    attack: async (here, way) => {
      const { work, daemon, rogue } = here;
      const at = path.join(work, "credentials");
      fs.writeFileSync(at, SECRET, { mode: 0o600 });
      const { save_point_id: target } = (await daemon.call("save", { workspace: work })) as SavePoint;
      await refused(here, way, "read", { workspace: work, target, path: "credentials" });
      const to = `${work}-reads`;
      await done(way, "fork", { workspace: work, target, path: to });
      await rogue.run(({ fs: files }, file) => files.rmSync(file), at);
      await done(way, "restore", { workspace: work, options: { target } });
      for (const file of [at, path.join(to, "credentials")]) {
        assert.equal(fs.statSync(file).uid, 0, file);
        await assert.rejects(
          rogue.run(({ fs: files }, name) => files.readFileSync(name, "utf8"), file),
          { code: "EACCES" },
        );
      }
      await done(way, "restore", { workspace: work, options: { target: pinnedOf(here, work) } });
    },
  },
];

// -------------------------------------------------------------------------------------------------- by masses

const CONNECTIONS = 1000;

const BY_MASSES: Attack[] = [
  {
    name: "opens a thousand connections",
    attack: async (here, way) => {
      const { daemon, work, rogue, persons, token } = here;
      const since = daemon.log.length;
      const sockets: net.Socket[] = [];
      if (way.name === "uid")
        await rogue.run(
          async ({ net: nets }, at, many) => {
            const all = Array.from({ length: many }, () => nets.connect(at).on("error", () => undefined));
            (globalThis as { all?: unknown }).all = all;
            for (const each of all)
              if (each.connecting) await new Promise((done) => each.once("connect", done).once("close", done));
          },
          daemon.socket,
          CONNECTIONS,
        );
      else
        for (let i = 0; i < CONNECTIONS; i++) {
          const socket = net.connect(portOf(here), "127.0.0.1").on("error", () => undefined);
          socket.write(`GET /v1/ready HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n\r\n`);
          sockets.push(socket);
        }
      await eventually("it is logged", () => /refused .*connections already/.test(daemon.log.slice(since)));
      assert.equal((await call(daemon.url, "status", { workspace: work }, persons))[0], 200);
      assert.equal((await call(daemon.socket, "status", { workspace: work }))[0], 200);
      for (const each of sockets) each.destroy();
      await rogue.run(() => {
        for (const each of ((globalThis as { all?: net.Socket[] }).all ?? []) as net.Socket[]) each.destroy();
      });
      await eventually("it may call again", async () => {
        const answered = await way.ask({ path: "/v1/status", body: { workspace: work } }).catch(() => null);
        return answered?.status === 200;
      });
    },
  },
  {
    name: "makes more calls at once than its limit",
    attack: async (here, way) => {
      const { daemon, person } = here;
      const since = daemon.log.length;
      // Each is under way until its body has come.
      const calls = Array.from({ length: 40 }, () =>
        sendRaw(here, way, `${headOf(here, way, "Content-Length: 9")}\r\n\r\n{`),
      );
      assert.equal((await call(daemon.socket, "status", { workspace: person }))[0], 200, "others are served meanwhile");
      const busy = (await Promise.all(calls)).filter((said) => said.startsWith("HTTP/1.1 423 ")).length;
      assert.ok(busy >= 24, String(busy));
      await refusalLogged(here, since, way, "/v1/daemon");
    },
  },
  {
    name: "floods the log with refusals of unknown calls",
    attack: async (here, way) => {
      const word = (i: number): string =>
        `flood${String(i).replaceAll(/\d/g, (digit) => "abcdefghij"[Number(digit)]!)}`;
      for (let i = 0; i < 1100; i += 10)
        await Promise.all(Array.from({ length: 10 }, (_, n) => way.ask({ path: `/v1/${word(i + n)}` })));
      const since = here.daemon.log.length;
      const name = way.name === "uid" ? "pin" : "unpin";
      assert.equal((await call(here.daemon.url, name, { workspace: here.work, target: "head" }, here.others))[0], 403);
      await refusalLogged(here, since, { ...way, who: `uid 0, token ${idOf(here.others)}` }, name);
    },
  },
  {
    name: "forks without end",
    by: "uid",
    attack: async (here, way) => {
      const { work, daemon } = here;
      const since = daemon.log.length;
      let code: string | null = null;
      let made = 0;
      for (; made < 110 && code === null; made++)
        ({ code } = await way.ask({
          path: "/v1/fork",
          body: { workspace: work, target: pinnedOf(here, work), path: `${work}-flood${made}` },
        }));
      assert.equal(code, "refused");
      assert.ok(made > 50, String(made));
      const ofFork = { workspace: `${work}-flood0`, target: "head", path: `${work}-flood0-more` };
      await refused(here, way, "fork", ofFork, "refused");
      await refusalLogged(here, since, way, "fork");
    },
  },
  {
    name: "makes points until the quota is reached",
    attack: async (here, way) => {
      const { daemon, work, rogue } = here;
      const { bytes } = ((await daemon.call("status", { workspace: work })) as { store: { bytes: number } }).store;
      const policy = { retention: { keepLast: 3 }, quotaBytes: bytes + (8 << 20) };
      await daemon.call("setPolicy", { workspace: work, policy });
      const since = daemon.log.length;
      let code: string | null = null;
      for (let i = 0; i < 10 && code === null; i++) {
        await rogue.run(
          ({ fs: files }, at, name) => {
            const pieces = Array.from({ length: 60 }, () => crypto.getRandomValues(new Uint8Array(65_536)));
            files.writeFileSync(`${at}/flood`, Buffer.concat([Buffer.from(name), ...pieces]));
          },
          work,
          String(i),
        );
        ({ code } = await way.ask({ path: "/v1/save", body: { workspace: work } }));
      }
      assert.equal(code, "no_space");
      await refusalLogged(here, since, way, "save");
      await rogue.run(({ fs: files }, at) => files.rmSync(`${at}/flood`), work);
      await daemon.call("setPolicy", { workspace: work, policy: { retention: null, quotaBytes: null } });
    },
  },
];

const reason = whyNoOrdinaryUser();

test(
  "a rogue agent's folder does not mislead the daemon, and its floods do not block other callers",
  { skip: reason ?? false },
  async (t) => {
    const here = await rogueAgent(t);
    // The flood of 100 forks takes two minutes.
    const masses = BY_MASSES.filter(({ name }) => LONG || name !== "forks without end");
    for (const attacks of [BY_FOLDER, masses]) await attacksOn(t, here, attacks);
    await t.test("cleanup by the rules keeps pinned points after the flood", async () => {
      const { daemon, work } = here;
      cairnOk(["-C", work, "cleanup", "--keep-last", "1"], daemon.asked);
      const left = await pointsOf(here, work);
      assert.ok(left.some((each) => each.save_point_id === pinnedOf(here, work) && each.pinned));
    });
  },
);
