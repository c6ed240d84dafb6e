import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { eventually } from "../../../test/fixtures/eventually.ts";
import { asOrdinaryUser } from "../../../test/fixtures/loop-file-system.ts";
import { whyProcStays, withoutProc } from "../../../test/fixtures/without-proc.ts";
import { CairnError } from "../../errors.ts";
import { findHolders, listensAt } from "./holders.ts";

const SKIP = process.platform === "linux" ? false : "needs /proc";

function scratch(context: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "cairn-holders-"));
  mkdirSync(join(directory, "ws", "sub"), { recursive: true });
  writeFileSync(join(directory, "ws", "read"), "x");
  writeFileSync(join(directory, "ws", "sub", "write"), "x".repeat(4096));
  writeFileSync(join(directory, "outside"), "x");
  context.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

async function start(context: TestContext, command: string, args: string[], cwd?: string): Promise<ChildProcess> {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"], ...(cwd === undefined ? {} : { cwd }) });
  await once(child.stdout!, "data");
  context.after(() => child.kill("SIGKILL"));
  return child;
}

function kindsOf(folder: string, pid: number | undefined): string[] {
  const { holders } = findHolders(folder, { budgetMs: 5_000 });
  return holders
    .filter((holder) => holder.pid === pid)
    .map((holder) => `${holder.kind} ${holder.path.toString()}`)
    .sort();
}

test(
  "findHolders returns working directories and open files of processes, with their paths",
  { skip: SKIP },
  async (context) => {
    const directory = scratch(context);
    const shell = "exec 3<read 4>>sub/write 5<../outside; echo ready; exec sleep 60";
    const child = await start(context, "sh", ["-c", shell], join(directory, "ws"));
    assert.deepEqual(kindsOf(join(directory, "ws"), child.pid), ["cwd ", "open-read read", "open-write sub/write"]);
    assert.deepEqual(kindsOf(join(directory, "ws", "sub"), child.pid), ["open-write write"]);
    const commands = (): Set<string | undefined> => {
      const { holders } = findHolders(join(directory, "ws"), { budgetMs: 5_000 });
      return new Set(holders.filter(({ pid }) => pid === child.pid).map(({ command }) => command));
    };
    // The shell says that it is ready before it becomes another program.
    await eventually("all are told with its name", () => [...commands()].join() === "sleep");
  },
);

test("findHolders returns no holders for a folder that no process uses", { skip: SKIP }, (context) => {
  assert.deepEqual(findHolders(join(scratch(context), "ws")).holders, []);
});

test("findHolders ignores an open file that was deleted", { skip: SKIP }, async (context) => {
  const directory = scratch(context);
  const child = await start(context, "sh", [
    "-c",
    'exec 3<"$1"; rm "$1"; echo ready; exec sleep 60',
    "sh",
    join(directory, "ws", "read"),
  ]);
  assert.deepEqual(kindsOf(join(directory, "ws"), child.pid), []);
});

const python = spawnSync("python3", ["--version"]).status === 0;

test(
  "findHolders finds a writable shared memory mapping whose descriptor was closed",
  { skip: SKIP || (python ? false : "needs python3") },
  async (context) => {
    const directory = scratch(context);
    const script =
      'import mmap,os,sys,time\nf=os.open(sys.argv[1],os.O_RDWR)\nm=mmap.mmap(f,4096)\nos.close(f)\nfor n in os.listdir("/proc/self/fd"):\n  p=int(n)\n  if p>2:\n    try: os.close(p)\n    except OSError: pass\nprint("ready",flush=True)\ntime.sleep(60)';
    const child = await start(context, "python3", ["-c", script, join(directory, "ws", "sub", "write")]);
    assert.deepEqual(kindsOf(join(directory, "ws"), child.pid), ["mapping sub/write"]);
  },
);

const unshare = spawnSync("unshare", ["-m", "true"]).status === 0;

test(
  "findHolders finds a process in another mount namespace, and returns paths of this namespace",
  { skip: SKIP || (unshare ? false : "needs the right to mount") },
  async (context) => {
    const directory = scratch(context);
    mkdirSync(join(directory, "elsewhere"));
    const shell = 'mount --bind "$1" "$2" && exec 4>>"$2/sub/write" && echo ready && exec sleep 60';
    const parent = await start(context, "unshare", [
      "-m",
      "sh",
      "-c",
      shell,
      "sh",
      join(directory, "ws"),
      join(directory, "elsewhere"),
    ]);
    const { holders } = findHolders(join(directory, "ws"), { budgetMs: 5_000 });
    assert.ok(
      holders.some((holder) => holder.kind === "open-write" && holder.path.toString() === "sub/write"),
      JSON.stringify(holders),
    );
    assert.ok(parent.pid !== undefined);
    for (const pid of new Set(holders.map((holder) => holder.pid))) process.kill(pid, "SIGKILL");
  },
);

test(
  "findHolders reports unreadable-processes if it may not inspect other users' processes",
  { skip: SKIP || (process.getuid?.() === 0 ? false : "needs root to become another user") },
  (context) => {
    const directory = scratch(context);
    chmodSync(directory, 0o755);
    const imports = { holders: new URL("holders.ts", import.meta.url).href };
    const unknown = asOrdinaryUser(imports, `return holders.findHolders(${JSON.stringify(directory)}).unknown;`);
    assert.ok((unknown as string[]).includes("unreadable-processes"), String(unknown));
  },
);

test("findHolders reports no-proc if /proc is missing", { skip: whyProcStays() ?? false }, (context) => {
  const folder = join(scratch(context), "ws");
  const imports = { holders: new URL("holders.ts", import.meta.url).href };
  const found = withoutProc(imports, `return holders.findHolders(${JSON.stringify(folder)});`);
  assert.deepEqual(found, { holders: [], unknown: ["no-proc"] });
});

test("findHolders reports out-of-time if it reaches its time limit", { skip: SKIP }, (context) => {
  assert.ok(findHolders(join(scratch(context), "ws"), { budgetMs: -1 }).unknown.includes("out-of-time"));
});

test("findHolders throws not_found for a missing folder", { skip: SKIP }, (context) => {
  assert.throws(
    () => findHolders(join(scratch(context), "none")),
    (error) => error instanceof CairnError && error.code === "not_found",
  );
});

test("listensAt tells a process that listens at a port from another one", { skip: SKIP }, async () => {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as net.AddressInfo;
  const other = spawn("sleep", ["60"]);
  try {
    assert.equal(listensAt(process.pid, port), true);
    assert.equal(listensAt(other.pid!, port), false);
    server.close();
    await once(server, "close");
    assert.equal(listensAt(process.pid, port), false);
  } finally {
    other.kill();
  }
});
