import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { CairnError, toCairnError } from "../../errors.ts";
import { sha256 } from "../../crypto/hash.ts";
import { type MasterKeys, openedOrNull, openMessage, sealMessage } from "../../crypto/seal.ts";
import { decodeConfig, encodeConfig } from "../../formats/config.ts";
import { decodeKeyFile, decodeMasterKeys, encodeMasterKeys } from "../../formats/key-file.ts";
import { durableWrite } from "../../fs/durable.ts";
import { objectIdOf } from "../../ids.ts";
import { formatPolynomial, randomPolynomial } from "../../repository/polynomial.ts";
import { keysFromPassword, Repository } from "../../repository/repository.ts";
import type { Storage } from "../../repository/storage/storage.ts";
import type { StoreFinding } from "../store-care.ts";
import { embeddedStorage } from "./embedded-store.ts";
import type { StorePaths } from "./store-paths.ts";

/**
 * Whether the store can be opened: its folder, its config, the master keys' file, the password and its key files.
 * Any one of them that is lost can be made again from the others.
 */
export async function examineAccess(paths: StorePaths): Promise<StoreFinding[]> {
  if (!fs.existsSync(paths.repository)) {
    return [
      {
        kind: "store",
        severity: "damage",
        detail: `${paths.repository} is missing: with it all content of the points`,
      },
    ];
  }
  return new AccessExamination(paths).run();
}

/** Everything that can be sealed was sealed with these. */
interface FoundKeys {
  keys: MasterKeys;
  /** where they were found */
  by: "key-file" | "password";
}

class AccessExamination {
  readonly #paths: StorePaths;
  readonly #storage: Storage;
  readonly #findings: StoreFinding[] = [];

  constructor(paths: StorePaths) {
    this.#paths = paths;
    this.#storage = embeddedStorage(paths);
  }

  async run(): Promise<StoreFinding[]> {
    this.#modes();
    const fromFile = await this.#keyFile();
    const fromPassword = await this.#password();
    const found = await this.#chosen(fromFile.keys, fromPassword.keys);
    if (found === null) {
      this.#add(
        "key",
        "damage",
        `the store cannot be opened: ${fromFile.problem ?? "its key does not fit"}; ${fromPassword.problem ?? "its password does not fit"}`,
      );
      return this.#findings;
    }
    await this.#config(found.keys);
    if (fromFile.problem !== null || found.by === "password")
      this.#mendKeyFile(fromFile.problem ?? "it is the key of another store", found.keys);
    await this.#keyFiles(found.keys, fromPassword);
    return this.#findings;
  }

  #add(
    kind: string,
    severity: StoreFinding["severity"],
    detail: string,
    mending?: { repair: string; mend: () => Promise<void> },
  ): void {
    this.#findings.push({ kind, severity, detail, ...mending });
  }

  #modes(): void {
    for (const file of [this.#paths.keyFile, this.#paths.passwordFile]) {
      const mode = fs.statSync(file, { throwIfNoEntry: false })?.mode;
      if (mode === undefined || (mode & 0o077) === 0) continue;
      const mend = async (): Promise<void> => fs.chmodSync(file, 0o600);
      this.#add("permissions", "warning", `others may read ${file} (mode ${(mode & 0o777).toString(8)})`, {
        repair: "only its owner may read it from then on",
        mend,
      });
    }
  }

  async #keyFile(): Promise<{ keys: MasterKeys | null; problem: string | null }> {
    try {
      return { keys: decodeMasterKeys(fs.readFileSync(this.#paths.keyFile)), problem: null };
    } catch (error) {
      const known = toCairnError(error);
      if (known.code === "permission") throw known;
      return { keys: null, problem: `${this.#paths.keyFile}: ${known.message}` };
    }
  }

  async #password(): Promise<{ password: string | null; keys: MasterKeys | null; problem: string | null }> {
    let password: string;
    try {
      password = fs.readFileSync(this.#paths.passwordFile, "utf8").trimEnd();
      if (password === "") throw new CairnError("damaged", "it is empty");
    } catch (error) {
      return { password: null, keys: null, problem: `${this.#paths.passwordFile}: ${toCairnError(error).message}` };
    }
    try {
      return { password, keys: await keysFromPassword(this.#storage, password), problem: null };
    } catch (error) {
      return { password, keys: null, problem: toCairnError(error).message };
    }
  }

  /** The keys with which something of the store opens. */
  async #chosen(fromFile: MasterKeys | null, fromPassword: MasterKeys | null): Promise<FoundKeys | null> {
    if (fromFile !== null && (await this.#opens(fromFile))) return { keys: fromFile, by: "key-file" };
    if (fromPassword !== null && (await this.#opens(fromPassword))) return { keys: fromPassword, by: "password" };
    return null;
  }

  /** True when these keys open the config or, where that is lost, any other sealed file. */
  async #opens(keys: MasterKeys): Promise<boolean> {
    let tried = 0;
    for (const kind of ["config", "snapshots", "index"] as const) {
      for (const { name } of (await this.#storage.list(kind)).slice(0, 20)) {
        tried++;
        const sealed = await this.#storage.load(kind, name).catch(() => null);
        // Damaged, or sealed with other keys: the next one tells.
        if (sealed !== null && openedOrNull(keys, sealed) !== null) return true;
      }
    }
    return tried === 0;
  }

  async #config(keys: MasterKeys): Promise<void> {
    let problem: string;
    try {
      decodeConfig(openMessage(keys, await this.#storage.load("config", "config")));
      return;
    } catch (error) {
      const known = toCairnError(error);
      if (known.code === "newer_version") throw known;
      problem = known.code === "not_found" ? "it is missing" : known.message;
    }
    this.#add("config", "damage", `the store's config cannot be used: ${problem}`, {
      repair:
        "a new one is written with the same keys; large files are cut anew from then on, so their next change is stored whole",
      mend: async () => {
        const config = {
          version: 2,
          id: randomBytes(32).toString("hex"),
          chunker_polynomial: formatPolynomial(randomPolynomial()),
        };
        if (await this.#storage.exists("config", "config")) await this.#storage.remove("config", "config");
        await this.#storage.save("config", "config", sealMessage(keys, encodeConfig(config)));
      },
    });
  }

  #mendKeyFile(problem: string, keys: MasterKeys): void {
    this.#add("key", "damage", `the file with the store's keys cannot be used: ${problem}`, {
      repair: "it is written again from the password's key",
      mend: async () => durableWrite(this.#paths.keyFile, Buffer.from(encodeMasterKeys(keys)), { mode: 0o600 }),
    });
  }

  /** Every key file can be read, and the password opens one of them: that is how restic opens the store. */
  async #keyFiles(
    keys: MasterKeys,
    password: { password: string | null; keys: MasterKeys | null; problem: string | null },
  ): Promise<void> {
    const damaged: string[] = [];
    for (const { name } of await this.#storage.list("keys")) {
      try {
        const bytes = await this.#storage.load("keys", name);
        if (objectIdOf(sha256(bytes)) !== name) throw new CairnError("damaged", "its SHA-256 is not its name");
        decodeKeyFile(bytes);
      } catch (error) {
        damaged.push(name);
        const remove = {
          repair: "it is removed; the password gets a key file of its own",
          mend: async (): Promise<void> => this.#storage.remove("keys", name),
        };
        this.#add(
          "key",
          "damage",
          `the store's key file ${name.slice(0, 12)} cannot be used: ${toCairnError(error).message}`,
          remove,
        );
      }
    }
    const fits = password.keys !== null && Buffer.compare(password.keys.encrypt, keys.encrypt) === 0;
    if (fits && damaged.length === 0) return;
    const works = fits && (await this.#storage.list("keys")).length > damaged.length;
    if (works) return;
    this.#add(
      "password",
      "damage",
      `the password does not open the store: ${password.problem ?? "it opens another one"}`,
      {
        repair:
          password.password === null
            ? "a new password is made, with a key file for it"
            : "a key file for it is written",
        mend: async () => this.#newKeyFile(keys, password.password),
      },
    );
  }

  async #newKeyFile(keys: MasterKeys, known: string | null): Promise<void> {
    const password = known ?? randomBytes(32).toString("hex");
    const repository = await Repository.open(this.#storage, { keys });
    await repository.addKey(password);
    if (known === null) durableWrite(this.#paths.passwordFile, Buffer.from(`${password}\n`), { mode: 0o600 });
  }
}
