import { statSync } from "node:fs";
import { createSecureContext } from "node:tls";
import { CairnError, toCairnError } from "../errors.ts";
import { readRegular } from "../fs/regular-file.ts";

const MAX_PEM_BYTES = 1 << 20;

export interface TlsPair {
  /** In PEM. */
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** A certificate and its key in files, which another program renews now and then. */
export class TlsFiles {
  readonly #certificate: string;
  readonly #key: string;
  #stamp = "";

  constructor(certificate: string, key: string) {
    this.#certificate = certificate;
    this.#key = key;
  }

  /** Reads both files. Throws `usage` if they are not a certificate and its key, and system errors. */
  read(): TlsPair {
    this.#stamp = this.#look();
    const pair = { cert: readPem(this.#certificate), key: readPem(this.#key) };
    try {
      createSecureContext(pair);
    } catch (error) {
      const message = `${this.#certificate} and ${this.#key} are not a certificate and its key: ${(error as Error).message}`;
      throw new CairnError("usage", message, { cause: error });
    }
    return pair;
  }

  /** Reads both files again if one has changed, else null. Throws the errors of `read()`, once for each change. */
  readChanged(): TlsPair | null {
    return this.#look() === this.#stamp ? null : this.read();
  }

  #look(): string {
    return [this.#certificate, this.#key]
      .map((path) => {
        const facts = statSync(path, { throwIfNoEntry: false, bigint: true });
        return facts === undefined ? "" : `${facts.dev} ${facts.ino} ${facts.size} ${facts.mtimeNs} ${facts.ctimeNs}`;
      })
      .join("|");
  }
}

function readPem(path: string): Buffer {
  let bytes: Buffer;
  try {
    bytes = readRegular(path, { named: true });
  } catch (error) {
    throw toCairnError(error, "cannot read the certificate or its key");
  }
  if (bytes.length > MAX_PEM_BYTES) throw new CairnError("usage", `${path} is too large for a certificate or a key`);
  return bytes;
}
