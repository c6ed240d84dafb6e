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

test("a pattern that begins with the folder's path, or a link to it, is made relative to the folder", (t) => {
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

test("a pattern with the folder's path stays unchanged, with a warning, if the folder has an entry of its first name", (t) => {
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

test("patterns stay unchanged if they match entries of the folder, or no path at all", (t) => {
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

test("a pattern for an existing path outside the folder gives a warning", (t) => {
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

test("a pattern in borg's syntax is refused", (t) => {
  const { folder } = scene(t);
  for (const given of ["pp:/home/.ssh", "pf:/x", "sh:**/.ssh", "fm:*/.ssh", "re:[.]ssh$", "!sh:x"])
    assert.throws(() => givenPatterns(folder, [given], undefined), { code: "usage", message: /borg's patterns/ });
  const names = ["Re: x", "\\re:x", "spp:x", "re"];
  assert.deepEqual(
    givenPatterns(folder, names, () => assert.fail("no warning")),
    names,
  );
});
