import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { CairnError } from "../../../errors.ts";
import { argsOf, CREATED, failing, fakeLibrary, ID_A } from "../../testing-fake-library.ts";
import { runFake, runJson } from "../../testing-run.ts";

const MOUNTED = { path: "data", reason: "mounted", detail: "another file system is mounted there" };
const CLOSED = { path: "closed", reason: "unreadable", detail: "permission denied (EACCES)" };

test("backup create lists entries that its save left out, and exits 10 if the point is incomplete", async () => {
  const told = async (result: object): Promise<[number, string[]]> => {
    const fake = fakeLibrary({ createBackup: () => ({ ...CREATED, ...result }) });
    const { status, stdout } = await runFake(["backup", "create", "-r", "x"], { fake });
    return [status, stdout.trimEnd().split("\n").slice(2)];
  };
  assert.deepEqual(await told({}), [0, []]);
  const mounted = ["  left out: 1 entry", "    data: mounted; another file system is mounted there"];
  assert.deepEqual(await told({ left_out: [MOUNTED] }), [0, mounted]);
  const incomplete = { count: 1, left_out: [CLOSED] };
  assert.deepEqual(await told({ incomplete, left_out: [CLOSED, MOUNTED] }), [
    10,
    [
      "incomplete: 1 entry of the folder could not be recorded in the save point",
      "  closed  permission denied (EACCES)",
      ...mounted,
    ],
  ]);
  const skipped = { snapshot: null, unchanged: true, left_out: [MOUNTED] };
  assert.deepEqual(await told(skipped), [0, mounted.slice(1)]);
});

test("backup create accepts options of its save, except for a point", async () => {
  const options = ["--reread", "--cross-mounts", "--allow", "space"];
  const { fake } = await runFake(["backup", "create", "-r", "x", ...options]);
  const { save, reread, crossMounts, allow } = argsOf(fake, "createBackup")[1] as Record<string, unknown>;
  assert.deepEqual([save, reread, crossMounts, allow], [undefined, true, true, ["space"]]);
  for (const line of [["--reread"], ["--cross-mounts"], ["--allow", "home"]])
    for (const what of [["--no-save"], ["head"]]) {
      const { status, stderr } = await runFake(["backup", "create", "-r", "x", ...what, ...line]);
      assert.equal(status, 2, stderr);
    }
});

test("backup create of a named folder allows a home directory, and shows the library's refusal", async () => {
  const asked: unknown[] = [];
  const openOrInit = (_folder: string, { allow }: { allow: string[] }): never => {
    asked.push(allow);
    throw new CairnError("refused", "it is a home directory", { hint: "override with --allow home" });
  };
  const settings = {
    fake: fakeLibrary({ open: () => Promise.reject(new CairnError("not_a_workspace", "no")), openOrInit }),
  };
  for (const allow of [[], ["--allow", "home"]]) {
    const { envelope } = await runJson(["backup", "create", "-r", "x", "/", ...allow], settings);
    assert.deepEqual([envelope.error?.code, envelope.error?.hint], ["refused", "override with --allow home"]);
  }
  assert.deepEqual(asked, [["home"], ["home"]]);
});

test("backup create names the next command if its argument is a file or lies in another workspace", async () => {
  const hint = async (words: string[], fake = fakeLibrary()): Promise<[number, string]> => {
    const { status, envelope } = await runJson(["backup", "create", "-r", "x", ...words], { fake, cwd: "/" });
    return [status, envelope.error?.hint ?? ""];
  };
  for (const file of ["/etc/passwd", "etc/passwd"]) {
    const stream = `cairn backup stream --name passwd < ${file}`;
    const [status, said] = await hint([file]);
    assert.deepEqual([status, said.endsWith(stream)], [7, true], said);
  }
  const refused = new CairnError("refused", "it lies in the workspace /a", { details: { guard: "nested" } });
  const nested = fakeLibrary({
    open: failing(new CairnError("not_a_workspace", "no")),
    openOrInit: failing(refused),
  });
  assert.match((await hint(["/etc"], nested))[1], /restored from its backups; --allow nested/);
});

test("backup create takes a word for the folder or the point that exists, and is ambiguous if both exist", async (t) => {
  const root = mkdtempSync(join(tmpdir(), "cairn-create-"));
  t.after(() => rmSync(root, { recursive: true }));
  for (const name of ["2024", "cafe", "latest"]) mkdirSync(join(root, name));
  writeFileSync(join(root, "dump"), "");
  const noPoint = new CairnError("not_found", "no save point begins with it");
  const noWorkspace = new CairnError("not_a_workspace", "no");
  const sent = async (
    word: string,
    answers: Parameters<typeof fakeLibrary>[0],
    ...more: string[]
  ): Promise<unknown> => {
    const fake = fakeLibrary(answers);
    const { envelope } = await runJson(["backup", "create", "-r", "x", word, ...more], { fake, cwd: root });
    if (envelope.error !== null) return [envelope.error.code, envelope.error.hint];
    const { point, save } = argsOf(fake, "createBackup")[1] as Record<string, unknown>;
    return [
      save !== false && point === undefined,
      point,
      (fake.asked.find(({ method }) => method === "openOrInit")?.args ?? [])[0],
    ];
  };
  const folder = [true, undefined, join(root, "cafe")];
  assert.deepEqual(await sent("cafe", { open: failing(noWorkspace), find: () => null }), folder);
  assert.deepEqual(((await sent("cafe", { resolve: failing(noPoint) })) as unknown[]).slice(0, 2), [true, undefined]);
  assert.deepEqual(await sent("cafe", {}), ["ambiguous", `the folder is ./cafe, the point ${ID_A}`]);
  const several = new CairnError("ambiguous", "2 save points", { hint: "use more digits" });
  assert.deepEqual(await sent("2024", { resolve: failing(several) }), [
    "ambiguous",
    "use more digits; the folder is ./2024",
  ]);
  assert.deepEqual(await sent("cafe", {}, "-C", root), [false, "cafe", undefined]);
  assert.deepEqual(await sent("abcd", {}), [false, "abcd", undefined]);
  assert.deepEqual(await sent("latest", { createBackup: failing(noPoint) }), [
    "not_found",
    "`cairn history` lists the points; the folder is ./latest",
  ]);
  assert.match(
    String(await sent("dump", {})),
    /^refused,name the folder that contains it, or back it up alone as a stream: /,
  );
});
