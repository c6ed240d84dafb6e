import assert from "node:assert/strict";
import test from "node:test";
import { CairnError } from "../../errors.ts";
import { splitLocation, unknownScheme } from "./location.ts";

test("splitLocation returns the scheme local for a path without a scheme", () => {
  assert.deepEqual(splitLocation("/srv/backups"), { scheme: "local", rest: "/srv/backups" });
  assert.deepEqual(splitLocation("./a:b"), { scheme: "local", rest: "./a:b" });
  assert.deepEqual(splitLocation("backups"), { scheme: "local", rest: "backups" });
});

test("splitLocation splits a location with a scheme at the first colon", () => {
  assert.deepEqual(splitLocation("local:a:b"), { scheme: "local", rest: "a:b" });
  assert.deepEqual(splitLocation("rest:https://host:8000/x"), { scheme: "rest", rest: "https://host:8000/x" });
  assert.deepEqual(splitLocation("SFTP:user@host:/x"), { scheme: "sftp", rest: "user@host:/x" });
});

test("splitLocation throws usage for an empty location", () => {
  for (const location of ["", "local:"])
    assert.throws(
      () => splitLocation(location),
      (error) => error instanceof CairnError && error.code === "usage",
    );
});

test("splitLocation throws usage with an sftp hint for user@host:path without a scheme", () => {
  for (const location of ["user@host:/srv/b", "user@host:b"])
    assert.throws(() => splitLocation(location), { code: "usage", hint: new RegExp(`sftp:${location}`) });
  assert.deepEqual(splitLocation("./user@host:b"), { scheme: "local", rest: "./user@host:b" });
  assert.deepEqual(splitLocation("dir/user@host"), { scheme: "local", rest: "dir/user@host" });
});

test("unknownScheme's hint names a way to reach services that only restic supports, such as b2", () => {
  const hint = (scheme: string): string => unknownScheme(scheme, ["local", "s3"]).hint!;
  for (const scheme of ["b2", "gs", "swift"])
    assert.match(hint(scheme), /s3:https:\/\/.*, or for a storage that rclone supports/);
  for (const scheme of ["azure", "rclone", "webdav"])
    assert.match(hint(scheme), /^for a storage that rclone supports, run `rclone serve restic .*rest:http:\/\/127/);
  assert.match(hint("http"), /^for a server of restic's protocol name rest:http:/);
});
