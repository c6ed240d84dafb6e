import assert from "node:assert/strict";
import { test } from "node:test";
import { CairnError } from "../errors.ts";
import { decryptWithIdentities, encryptForRecipients, isAgeFile } from "./age.ts";

// Made by age-keygen 1.1.1 for this test; the file below by `age -r … -o -` of the same version.
const ALICE = {
  recipient: "age15ca8e0vhtxnpg2t6fsrl9erdsdujzx4nyw2jdqjzjra069rpw3nq5ltf28",
  identity: "AGE-SECRET-KEY-1ZVLCSV34ADKH7YYHKLA5U08PNLJAEP9KZUS5QRUFJRG5S5GJGMTSWGAX73",
};
const BOB = {
  recipient: "age1qhlrjwzexq77qv0lec57tmxrnj6clflen9a5mh7chdk2pkv80y8qejrg53",
  identity: "AGE-SECRET-KEY-1NCPJR00T6S7WA7HAQQ7ELZG97YMDXVADGVQJUVGPXU7JFP2YUGSQ9CVZJD",
};
const BY_AGE =
  "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBwYVIwdzQ5UUs5TXliUGdFbWVLMmlPM3dLL3N1QUdqL2lWeXovOFdTbndJCi82TWIxWU00M3hFblRFMTM5Q2ZBajEyVlYvcUcwenA2N2k3akFrVDdkQnMKLS0tICtXakVnalAvVnB6WlRJME1jOGJCZFVVdm1MTERrUzIxYkNnODVORHRpemcK87V4jNp/Cac2+kqdYKVMPSLb32buZQcwtn4GiKHeLYdCWTcLTCtko7n7EATNBs6K";

function code(wanted: string): (error: unknown) => boolean {
  return (error) => error instanceof CairnError && error.code === wanted;
}

test("each recipient of a secret can decrypt it, and other identities cannot", async () => {
  const file = Buffer.from(await encryptForRecipients("correct horse", [ALICE.recipient, BOB.recipient]));
  assert.ok(isAgeFile(file));
  for (const { identity } of [ALICE, BOB]) {
    const opened = await decryptWithIdentities(file, `# a comment\n\n${identity}\n`);
    assert.equal(Buffer.from(opened).toString(), "correct horse");
  }
  const forAlice = Buffer.from(await encryptForRecipients("correct horse", [ALICE.recipient]));
  await assert.rejects(decryptWithIdentities(forAlice, BOB.identity), code("wrong_password"));
  assert.equal(Buffer.from(await decryptWithIdentities(forAlice, `${BOB.identity}\n${ALICE.identity}`)).length, 13);
});

test("decryptWithIdentities opens an unarmored file that the age program wrote", async () => {
  const file = Buffer.from(BY_AGE, "base64");
  assert.ok(isAgeFile(file));
  assert.equal(Buffer.from(await decryptWithIdentities(file, ALICE.identity)).toString(), "from age itself\n");
});

test("decryptWithIdentities throws a CairnError for a file with a flipped bit, and for a truncated file", async () => {
  const file = Buffer.from(BY_AGE, "base64");
  for (let at = 0; at < file.length; at += 3) {
    const bad = Buffer.from(file);
    bad[at] = bad[at]! ^ 1;
    await assert.rejects(decryptWithIdentities(bad, ALICE.identity), CairnError, `flip at ${at}`);
    await assert.rejects(decryptWithIdentities(file.subarray(0, at), ALICE.identity), CairnError, `cut at ${at}`);
  }
});

test("an invalid recipient or identity is refused with a message that contains no secret key", async () => {
  for (const recipient of ["", "age1qqqq", "bob", ALICE.identity, `${ALICE.recipient}x`])
    await assert.rejects(encryptForRecipients("x", [recipient]), (error: Error) => {
      assert.ok(!`${error.message} ${(error as CairnError).hint}`.includes("AGE-SECRET-KEY-1"));
      return code("usage")(error);
    });
  await assert.rejects(encryptForRecipients("x", []), code("usage"));
  const file = Buffer.from(BY_AGE, "base64");
  await assert.rejects(decryptWithIdentities(file, "# nothing\n"), code("usage"));
  await assert.rejects(decryptWithIdentities(file, "AGE-PLUGIN-YUBIKEY-1QQQQ"), code("unsupported"));
  await assert.rejects(decryptWithIdentities(file, ALICE.identity.slice(0, -1)), code("damaged"));
  assert.ok(!isAgeFile(Buffer.from("correct horse")) && !isAgeFile(new Uint8Array(0)));
});
