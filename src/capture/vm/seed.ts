import { chmodSync, existsSync, mkdirSync, renameSync, statSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { CairnError, toCairnError } from "../../errors.ts";
import { SEED_FILE, SEED_SIZE } from "../../formats/machine/machine.ts";
import { runTool } from "../../fs/child-pipes.ts";
import { fsyncDirectory, fsyncFile, temporaryName, writeNewFile } from "../../fs/durable.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { installing } from "./guest-service.ts";
import { programOf } from "./host.ts";
import { hostNameOf } from "./identity.ts";
import type { Machine, MachineRecord } from "./machine.ts";

/** The seed disk of a machine: a NoCloud source of cloud-init, which the guest reads when it boots. No saved state includes it. */

export interface Seed {
  /** For the programs that cloud-init has for it: a script, `#cloud-config`, and others. */
  userData: Buffer;
  /** Public keys that may log in, in OpenSSH's form. */
  sshKeys: string[];
  /** Paths of the files that have these keys. */
  keyFiles: readonly string[];
}

const NO_SEED: Seed = { userData: Buffer.alloc(0), sshKeys: [], keyFiles: [] };
const KEY = /^(?:ssh-|ecdsa-|sk-)[\w@.-]+ [A-Za-z0-9+/]+={0,3}(?: .*)?$/;
const SMALL = 64 << 10;

/** Settings below those of the user's data: root may log in with a key, and a clone that boots keeps its host keys. */
const SETTINGS = "#cloud-config\ndisable_root: false\nssh_deletekeys: false\n";

/** Returns the vendor data. A script in it installs the service, since `runcmd` of user data would replace that of vendor data. */
function vendorData(instance: string): string {
  const parts = [
    { type: "text/cloud-config", content: SETTINGS },
    { type: "text/x-shellscript", filename: "cairn-guest", content: installing(instance) },
  ];
  return `#cloud-config-archive\n${JSON.stringify(parts, null, 1)}\n`;
}

/** Reads the files of a seed that a user named. Throws `usage`, and system errors. */
export function readSeed(given: { userData?: string | undefined; sshKeys?: readonly string[] | undefined }): Seed {
  const { userData, sshKeys = [] } = given;
  return {
    userData: userData === undefined ? NO_SEED.userData : readNamed(userData, SEED_SIZE),
    sshKeys: sshKeys.flatMap(keysIn),
    keyFiles: sshKeys,
  };
}

function readNamed(file: string, limit: number): Buffer {
  try {
    return readRegular(file, { named: true, limit });
  } catch (error) {
    throw toCairnError(error, `read ${printablePath(file)}`);
  }
}

/** Returns the public keys of a file; of a private key's file, those of the file beside it. */
function keysIn(file: string): string[] {
  const text = readNamed(file, SMALL).toString("utf8");
  if (text.startsWith("-----BEGIN ")) return keysIn(`${file}.pub`);
  const lines = text.split("\n").map((line) => line.trim());
  const keys = lines.filter((line) => line !== "" && !line.startsWith("#"));
  if (keys.length > 0 && keys.every((key) => KEY.test(key))) return keys;
  throw new CairnError("usage", `${printablePath(file)} has no public key of SSH`, {
    hint: "name the file that ssh-keygen made, e.g. ~/.ssh/id_ed25519.pub",
  });
}

/** Writes the seed disk of a machine. Its instance id is the machine's own, so that cloud-init takes a clone for a new instance. */
export async function writeSeed(machine: Machine, { id }: MachineRecord, { userData, sshKeys }: Seed): Promise<void> {
  const folder = join(machine.folder, temporaryName());
  const content = join(folder, "content");
  const image = join(folder, SEED_FILE);
  const metaData = {
    "instance-id": id,
    "local-hostname": hostNameOf(machine.name),
    "public-keys": sshKeys,
  };
  mkdirSync(content, { recursive: true, mode: 0o700 });
  try {
    // cloud-init reads YAML, of which JSON is a part.
    const files = {
      "meta-data": JSON.stringify(metaData, null, 1),
      "user-data": userData,
      "vendor-data": vendorData(id),
    };
    for (const [name, bytes] of Object.entries(files)) writeNewFile(join(content, name), Buffer.from(bytes), 0o600);
    const form = ["-as", "mkisofs", "-quiet", "-V", "cidata", "-R", "-J", "-no-pad"];
    await runTool(programOf("xorriso"), ["-no_rc", ...form, "-o", image, content]);
    const { size } = statSync(image);
    if (size > SEED_SIZE)
      throw new CairnError(
        "usage",
        `the user data and keys make a seed disk of ${size} bytes; it may have ${SEED_SIZE}`,
      );
    truncateSync(image, SEED_SIZE);
    chmodSync(image, 0o600);
    fsyncFile(image);
    renameSync(image, join(machine.folder, SEED_FILE));
    fsyncDirectory(machine.folder);
  } finally {
    removeAll(folder);
  }
}

/** Writes a seed disk without user data and keys if a machine has none. */
export async function requireSeed(machine: Machine, record: MachineRecord): Promise<void> {
  if (!existsSync(join(machine.folder, SEED_FILE))) await writeSeed(machine, record, NO_SEED);
}
