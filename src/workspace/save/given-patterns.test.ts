import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { givenPatterns } from "./given-patterns.ts";

function scene(t: TestContext): { own: string; folder: Buffer; link: string } {
  const own = realpathSync(mkdtempSync(join(tmpdir(), "cairn-patterns-")));
  t.after(() => rmSync(own, { recursive: true, force: true }));
  mkdirSync(join(own, "disk/home/there"), { recursive: true });
  symlinkSync("disk", join(own, "link"));
  return { own, folder: Buffer.from(join(own, "disk/home")), link: join(own, "link/home") };
}

test("a pattern counts from the folder when it begins with the folder's path, by whatever link", (t) => {
  const { folder, link } = scene(t);
  const given = [`${folder.toString()}/.ssh`, `${link}/a/*.o`, `!${link}/keep/`, "./z", "!./y"];
  const wanted = ["/.ssh", "/a/*.o", "!/keep/", "/z", "!/y"];
  assert.deepEqual(
    givenPatterns(folder, given, () => assert.fail("no warning")),
    wanted,
  );
  for (const whole of [folder.toString(), `${link}/`, `${link}//`])
    assert.throws(() => givenPatterns(folder, [whole], undefined), { code: "usage" });
});

test("a pattern counts from the folder, and is warned of, when the folder has its first name and lies there too", (t) => {
  const { own, folder } = scene(t);
  const first = own.split("/")[1]!;
  mkdirSync(join(folder.toString(), first));
  const warnings: string[] = [];
  const given = [`${folder.toString()}/cache`, folder.toString()];
  assert.deepEqual(
    givenPatterns(folder, given, (each) => warnings.push(each)),
    given,
  );
  assert.match(warnings[0]!, /which has that path; for that path on this machine use \.\/cache$/);
  assert.match(warnings[1]!, /which has that path$/);
});

test("other patterns stay as they are when they are of the folder or of nothing", (t) => {
  const { folder, own } = scene(t);
  const given = [
    "*.o",
    "a/b",
    "/there",
    "/there/x",
    "/",
    "/no/such/*",
    `${own}/nowhere/x`,
    ".hidden",
    "#",
    "!x",
    "/../x",
  ];
  assert.deepEqual(
    givenPatterns(folder, given, () => assert.fail("no warning")),
    given,
  );
});

test("a pattern is warned of when it leads to something outside the folder", (t) => {
  const { folder, own } = scene(t);
  const warnings: string[] = [];
  const outside = `${own}/link`;
  assert.deepEqual(
    givenPatterns(folder, [outside], (each) => warnings.push(each)),
    [outside],
  );
  assert.equal(warnings.length, 1);
  assert.match(warnings[0]!, /leaves nothing out/);
});

test("a pattern is refused when it names its kind as borg's do", (t) => {
  const { folder } = scene(t);
  for (const given of ["pp:/home/.ssh", "pf:/x", "sh:**/.ssh", "fm:*/.ssh", "re:[.]ssh$", "!sh:x"])
    assert.throws(() => givenPatterns(folder, [given], undefined), { code: "usage", message: /borg's patterns/ });
  const names = ["Re: x", "\\re:x", "spp:x", "re"];
  assert.deepEqual(
    givenPatterns(folder, names, () => assert.fail("no warning")),
    names,
  );
});
