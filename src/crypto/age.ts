import { advice, CairnError, option } from "../errors.ts";

/**
 * Short secrets encrypted for people's keys, as files of age (age-encryption.org/v1), which the program `age` reads and
 * writes too. The package is loaded on first use.
 */

const BINARY_START = "age-encryption.org/v1\n";
const ARMOR_START = "-----BEGIN AGE ENCRYPTED FILE-----";

/** Tells whether bytes are an age file, with or without armor. */
export function isAgeFile(bytes: Uint8Array): boolean {
  const start = Buffer.from(bytes.subarray(0, 256)).toString("latin1");
  return start.startsWith(BINARY_START) || start.trimStart().startsWith(ARMOR_START);
}

/** Returns an armored file that each recipient (`age1…`) can decrypt alone. Throws `usage` for an invalid recipient. */
export async function encryptForRecipients(secret: string, recipients: readonly string[]): Promise<string> {
  if (recipients.length === 0) throw new CairnError("usage", "no age recipient was given to encrypt for");
  const { Encrypter, armor } = await import("age-encryption");
  const encrypter = new Encrypter();
  for (const recipient of recipients) {
    // No message repeats the text: it may be a secret key, given by mistake.
    const hint = "a recipient begins with age1; `age-keygen -y FILE` prints the recipient of an identity file";
    if (!recipient.startsWith("age1"))
      throw new CairnError("usage", "the given text is not an age recipient", { hint });
    try {
      encrypter.addRecipient(recipient);
    } catch (error) {
      throw new CairnError("usage", `${JSON.stringify(recipient.slice(0, 80))} is not an age recipient`, {
        hint,
        cause: error,
      });
    }
  }
  return armor.encode(await encrypter.encrypt(secret));
}

/**
 * Decrypts an age file with identities in the form of `age-keygen`: one a line, with comments. Throws `wrong_password`
 * if it is encrypted for others, `damaged` if it is damaged, `unsupported` for other kinds of identities.
 */
export async function decryptWithIdentities(file: Uint8Array, identities: string): Promise<Uint8Array> {
  const { Decrypter, armor } = await import("age-encryption");
  const decrypter = new Decrypter();
  for (const identity of identityLines(identities)) {
    try {
      decrypter.addIdentity(identity);
    } catch {
      throw new CairnError("damaged", "an age identity is not valid: it was cut or mistyped");
    }
  }
  const text = Buffer.from(file).toString("latin1").trim();
  try {
    return await decrypter.decrypt(text.startsWith(ARMOR_START) ? armor.decode(text) : file);
  } catch (error) {
    if (/no identity matched/.test((error as Error).message))
      throw new CairnError(
        "wrong_password",
        "the file is encrypted for other recipients; none of the given identities opens it",
      );
    throw new CairnError("damaged", `the file is not a valid age file: ${(error as Error).message}`, { cause: error });
  }
}

function identityLines(text: string): string[] {
  const lines = text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  if (lines.length === 0) throw new CairnError("usage", "the file contains no age identity");
  if (!lines.every((line) => /^AGE-SECRET-KEY-(?:PQ-)?1/.test(line)))
    throw new CairnError("unsupported", "only age identities that begin with AGE-SECRET-KEY-1 are supported", {
      hint: advice`use age itself for other identities: ${option("password", "--password-command 'age -d -i IDENTITY FILE'")}`,
    });
  return lines;
}
