import { strict as assert } from "node:assert";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { CairnError, type ErrorCode } from "../../../errors.ts";
import { checkCredentials, findS3Region, findS3Settings, parseProfiles } from "./credentials.ts";

const HOME = mkdtempSync(join(tmpdir(), "cairn-aws-"));
after(() => rmSync(HOME, { recursive: true, force: true }));

mkdirSync(join(HOME, ".aws"));
writeFileSync(
  join(HOME, ".aws/credentials"),
  `# comment
[default]
aws_access_key_id = ID1
aws_secret_access_key=SECRET=1
[ other ]\r
aws_access_key_id=ID2\r
aws_secret_access_key=SECRET2\r
aws_session_token=TOKEN2\r
region = there
[half]
aws_access_key_id=ID3
`,
);
writeFileSync(
  join(HOME, ".aws/config"),
  "[default]\nregion=here\ns3 =\n  region = nowhere\n[profile half]\nregion=half\n",
);

function coded(code: ErrorCode): (error: unknown) => boolean {
  return (error) => error instanceof CairnError && error.code === code && !/SECRET[=12]/.test(error.message);
}

test("findS3Settings prefers the environment to the profile, and refuses one key without the other", () => {
  const env = { HOME, AWS_ACCESS_KEY_ID: "E", AWS_SECRET_ACCESS_KEY: "S" };
  assert.deepEqual(findS3Settings(env).credentials, { accessKeyId: "E", secretAccessKey: "S" });
  const credentials = { accessKeyId: "E", secretAccessKey: "S", sessionToken: "T" };
  assert.deepEqual(findS3Settings({ ...env, AWS_SESSION_TOKEN: "T" }).credentials, credentials);
  assert.throws(() => findS3Settings({ HOME, AWS_ACCESS_KEY_ID: "E" }), coded("usage"));
  assert.throws(() => findS3Settings({ HOME, AWS_SECRET_ACCESS_KEY: "S" }), coded("usage"));
});

test("credentials are trimmed, and refused if they contain characters that a header cannot have", () => {
  const env = { HOME, AWS_ACCESS_KEY_ID: "E\n", AWS_SECRET_ACCESS_KEY: " S ", AWS_SESSION_TOKEN: "T\r\n" };
  const { credentials } = findS3Settings(env);
  assert.deepEqual(credentials, { accessKeyId: "E", secretAccessKey: "S", sessionToken: "T" });
  checkCredentials(credentials);
  for (const sessionToken of ["SECRET=\nX", "SECRET=ü", "SECRET= 1", "SECRET=\0"])
    assert.throws(() => checkCredentials({ ...credentials, sessionToken }), coded("usage"));
});

test("findS3Settings reads keys, token and region from a profile", () => {
  assert.deepEqual(findS3Settings({ HOME }), {
    credentials: { accessKeyId: "ID1", secretAccessKey: "SECRET=1" },
    region: "here",
  });
  assert.deepEqual(findS3Settings({ HOME, AWS_PROFILE: "other" }), {
    credentials: { accessKeyId: "ID2", secretAccessKey: "SECRET2", sessionToken: "TOKEN2" },
    region: "there",
  });
  assert.throws(() => findS3Settings({ HOME, AWS_PROFILE: "half" }), coded("usage"));
  assert.throws(() => findS3Settings({ HOME, AWS_PROFILE: "absent" }), coded("permission"));
  assert.throws(() => findS3Settings({ HOME: join(HOME, "nowhere") }), coded("permission"));
});

test("findS3Region returns the region of the environment, otherwise that of the profile", () => {
  assert.equal(findS3Region({ HOME, AWS_REGION: "a", AWS_DEFAULT_REGION: "b" }), "a");
  assert.equal(findS3Region({ HOME, AWS_DEFAULT_REGION: "b" }), "b");
  assert.equal(findS3Region({ HOME, AWS_PROFILE: "half" }), "half");
  assert.equal(findS3Region({ HOME, AWS_PROFILE: "absent" }), null);
});

test("parseProfiles skips invalid lines", () => {
  const profiles = parseProfiles("x=1\n[a]\n;no=1\nK = v # w\n[a]\nl=2\n[__proto__]\nm=3\n[broken\nn=4\n");
  assert.deepEqual([...profiles.keys()], ["a", "__proto__"]);
  assert.deepEqual(
    [...profiles.get("a")!],
    [
      ["k", "v # w"],
      ["l", "2"],
    ],
  );
});
