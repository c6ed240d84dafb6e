import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { join } from "node:path";
import { sha256 } from "../../crypto/hash.ts";
import { type MasterKeys, openedOrNull, openMessage, sealMessage } from "../../crypto/seal.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { decodeConfig, encodeConfig } from "../../formats/restic/config.ts";
import { decodeKeyFile, decodeMasterKeys, encodeMasterKeys } from "../../formats/restic/key-file.ts";
import { durableWrite } from "../../fs/durable.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { objectIdOf } from "../../ids.ts";
import { formatPolynomial, randomPolynomial } from "../../repository/packs/polynomial.ts";
import { keysFromPassword, Repository } from "../../repository/repository.ts";
import type { Storage } from "../../repository/storage/storage.ts";
import type { StoreFinding } from "./store-care.ts";
import { embeddedStorage } from "./embedded-store.ts";
import { type StorePaths, storePaths } from "./store-paths.ts";

/**
 * Checks whether the store can be opened: its folder, config, key files, password and the file with its master keys.
 * `control`: the control directory. Each of these, if lost, can be made again from the others.
 */
export async function examineAccess(control: string): Promise<StoreFinding[]> {
  const paths = storePaths(control);
  if (!fs.existsSync(paths.repository)) {
    const detail = `${paths.repository} is missing, and all content of the points with it`;
    return [{ kind: "store", severity: "damage", detail }];
  }
  const storage = embeddedStorage(paths);
  const file = readKeys(paths);
  const password = await readPassword(storage, paths);
  const isByFile = file.keys !== null && (await opensAny(storage, file.keys));
  const isByPassword = !isByFile && password.keys !== null && (await opensAny(storage, password.keys));
  const keys = isByFile ? file.keys : isByPassword ? password.keys : null;
  if (keys === null) {
    const detail = `the store cannot be opened: ${file.problem ?? "its key does not fit"}; ${password.problem ?? "its password does not fit"}`;
    return [...modeFindings(paths), { kind: "key", severity: "damage", detail }];
  }
  const findings = [...modeFindings(paths), ...(await configFindings(storage, paths, keys))];
  if (!isByFile)
    findings.push({
      kind: "key",
      severity: "damage",
      detail: `the file with the store's keys cannot be read: ${file.problem ?? "it is the key of another store"}`,
      repair: "the file is written again from the key that the password opens",
      mend: () => durableWrite(paths.keyFile, Buffer.from(encodeMasterKeys(keys)), { mode: 0o600 }),
    });
  return [...findings, ...(await keyFileFindings(storage, { paths, keys, password }))];
}

function modeFindings(paths: StorePaths): StoreFinding[] {
  return [paths.keyFile, paths.passwordFile].flatMap((file): StoreFinding[] => {
    const facts = fs.lstatSync(file, { throwIfNoEntry: false });
    const mode = facts?.isFile() === true ? facts.mode : 0;
    if ((mode & 0o077) === 0) return [];
    return [
      {
        kind: "permissions",
        severity: "warning",
        detail: `other users may read ${file} (mode ${(mode & 0o777).toString(8)})`,
        repair: "its mode becomes 600: only its owner may read it",
        mend: () => fs.chmodSync(file, 0o600),
      },
    ];
  });
}

/** Keys, or the reason why there are none. */
interface Found {
  keys: MasterKeys | null;
  problem: string | null;
}

function readKeys({ keyFile }: StorePaths): Found {
  try {
    return { keys: decodeMasterKeys(readRegular(keyFile)), problem: null };
  } catch (error) {
    const known = toCairnError(error);
    if (known.code === "permission") throw known;
    return { keys: null, problem: problemOf(keyFile, known) };
  }
}

function problemOf(file: string, { message }: CairnError): string {
  return message.includes(file) ? message : `${file}: ${message}`;
}

interface FoundPassword extends Found {
  password: string | null;
}

async function readPassword(storage: Storage, { passwordFile }: StorePaths): Promise<FoundPassword> {
  let password: string;
  try {
    password = readRegular(passwordFile).toString("utf8").trimEnd();
    if (password === "") throw new CairnError("damaged", "it is empty");
  } catch (error) {
    return { password: null, keys: null, problem: problemOf(passwordFile, toCairnError(error)) };
  }
  try {
    return { password, keys: await keysFromPassword(storage, password), problem: null };
  } catch (error) {
    return { password, keys: null, problem: toCairnError(error).message };
  }
}

/** True if these keys open the config or, if that is lost, another encrypted file; also true if the store has no such file. */
async function opensAny(storage: Storage, keys: MasterKeys): Promise<boolean> {
  let tried = 0;
  for (const kind of ["config", "snapshots", "index"] as const) {
    for (const { name } of (await storage.list(kind)).slice(0, 20)) {
      tried++;
      const sealed = await storage.load(kind, name).catch(() => null);
      // A file that does not open may be damaged or have other keys: the next file tells.
      if (sealed !== null && openedOrNull(keys, sealed) !== null) return true;
    }
  }
  return tried === 0;
}

async function configFindings(storage: Storage, { repository }: StorePaths, keys: MasterKeys): Promise<StoreFinding[]> {
  let problem: string;
  try {
    decodeConfig(openMessage(keys, await storage.load("config", "config")));
    return [];
  } catch (error) {
    const known = toCairnError(error);
    if (known.code === "newer_version") throw known;
    problem = known.code === "not_found" ? "it is missing" : known.message;
  }
  return [
    {
      kind: "config",
      severity: "damage",
      detail: `the store's config cannot be read: ${problem}`,
      repair:
        "a new config is written with the same keys and other chunker parameters: the next change of a large file stores the whole file",
      mend: async () => {
        const id = randomBytes(32).toString("hex");
        const config = { version: 2, id, chunker_polynomial: formatPolynomial(randomPolynomial()) };
        // Removes also a link or special file at this path.
        fs.rmSync(join(repository, "config"), { force: true });
        await storage.save("config", "config", sealMessage(keys, encodeConfig(config)));
      },
    },
  ];
}

/** Finds unreadable key files. If the password opens none, restic cannot open the store. */
async function keyFileFindings(
  storage: Storage,
  { paths, keys, password: known }: { paths: StorePaths; keys: MasterKeys; password: FoundPassword },
): Promise<StoreFinding[]> {
  const findings: StoreFinding[] = [];
  const names = (await storage.list("keys")).map(({ name }) => name);
  for (const name of names) {
    try {
      const bytes = await storage.load("keys", name);
      if (objectIdOf(sha256(bytes)) !== name) throw new CairnError("damaged", "its SHA-256 differs from its name");
      decodeKeyFile(bytes);
    } catch (error) {
      findings.push({
        kind: "key",
        severity: "damage",
        detail: `the store's key file ${name.slice(0, 12)} cannot be read: ${toCairnError(error).message}`,
        repair: "the key file is removed, and a new one is made for the password",
        mend: () => storage.remove("keys", name),
      });
    }
  }
  const fits = known.keys !== null && Buffer.compare(known.keys.encrypt, keys.encrypt) === 0;
  if (fits && (findings.length === 0 || names.length > findings.length)) return findings;
  findings.push({
    kind: "password",
    severity: "damage",
    detail: `the password does not open the store: ${known.problem ?? "it is the password of another store"}`,
    repair:
      known.password === null
        ? "a new password is made, with a key file for it"
        : "a key file for the password is written",
    mend: async () => {
      const password = known.password ?? randomBytes(32).toString("hex");
      await (await Repository.open(storage, { keys })).addKey(password);
      if (known.password === null) durableWrite(paths.passwordFile, Buffer.from(`${password}\n`), { mode: 0o600 });
    },
  });
  return findings;
}
