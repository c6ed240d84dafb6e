import { createHash } from "node:crypto";
import { accessSync, constants, existsSync, lstatSync, statSync } from "node:fs";
import { hostname } from "node:os";
import { dirname, join, resolve } from "node:path";
import { isSignedBy, newSigningKey, signBytes, type SigningKey, signingKeyOf } from "../../crypto/sign.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { PROGRAM } from "../../formats/program.ts";
import {
  decodeReceipt,
  encodeReceipt,
  encodeReceiptBody,
  type ReceiptBody,
  type ReceiptDatabase,
} from "../../formats/records/receipt.ts";
import { durableMkdir, durableWrite, readRecord, readSmallFile } from "../../fs/durable.ts";
import { acquireLock } from "../../fs/lock.ts";
import { namesIfThere } from "../../fs/paths/names-in.ts";
import { displayPath, isAtOrBelow } from "../../fs/paths/safe-path.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { realPathOf } from "../../workspace/place/find-workspace.ts";
import type { Rewriting } from "../../formats/records/descriptor.ts";
import { rawPath } from "../../formats/records/record.ts";
import type { SavePointId } from "../../ids.ts";
import { type ControlPaths, controlPaths } from "../../workspace/place/control-layout.ts";
import { controlOf, listDaemons, listRegistered, listSelfContained } from "../../workspace/place/registry.ts";
import { allPoints } from "../../workspace/points/points.ts";
import type {
  BackupList,
  BackupSnapshot,
  DatabaseProof,
  VerifyReceiptOptions,
  VerifyReceiptResult,
} from "../../contract/index.ts";
import { userStateDirectory } from "../../fs/users.ts";
import { requireOwnHome } from "../../workspace/place/owners.ts";

const MAX_BYTES = 1 << 20;
const LOCK_WAIT_MS = 10_000;
const NAME = /^\d{10}-[0-9a-f]{8}\.json$/;
/** A receipt has the rows of at most so many tables of a database. */
const MOST_TABLES = 100;
/** The newest receipts in which a list looks for its snapshots. */
const MOST_READ = 100;

function directory(): string {
  return join(userStateDirectory(), "receipts");
}

function keyFile(): string {
  return join(userStateDirectory(), "receipt-key");
}

/** This user's signing key; made if there is none. Mode 0600. */
function ownKey(): SigningKey {
  const bytes = readSmallFile(keyFile(), MAX_BYTES);
  if (bytes !== null) return signingKeyOf(Buffer.from(bytes.toString("latin1").trim(), "base64"));
  const key = newSigningKey();
  durableWrite(keyFile(), Buffer.from(`${Buffer.from(key.secret).toString("base64")}\n`), { mode: 0o600 });
  return key;
}

/** Shortens a database's proof to the fields of a receipt. */
export function receiptRow({ statistics, problems, ...proof }: DatabaseProof): ReceiptDatabase {
  const { path, path_b64, pages, sha256: image, check, label, duration_ms } = proof;
  return {
    path,
    ...(path_b64 === undefined ? {} : { path_b64 }),
    pages,
    sha256: image,
    check,
    problems: problems.length,
    schema_sha256: statistics?.schema_sha256 ?? null,
    rows: statistics === null ? null : statistics.tables.reduce((sum, { rows }) => sum + (rows ?? 0), 0),
    ...(statistics === null || statistics.tables.length > MOST_TABLES ? {} : { tables: statistics.tables }),
    label,
    duration_ms,
  };
}

/** Signs a proof and keeps the receipt, chained to the previous one. Returns its path. */
export async function writeReceipt(
  proven: Omit<ReceiptBody, "made_at" | "host" | "program" | "previous">,
  also: string | undefined,
): Promise<string> {
  requireOwnHome(directory());
  durableMkdir(directory());
  using _lock = await acquireLock(join(userStateDirectory(), "receipts.lock"), {
    purpose: "receipt",
    timeoutMs: LOCK_WAIT_MS,
  });
  const key = ownKey();
  const names = receiptNames();
  const last = names.at(-1);
  const number = last === undefined ? 1 : Number.parseInt(last, 10) + 1;
  const facts = {
    made_at: new Date().toISOString(),
    ...proven,
    host: hostname(),
    program: PROGRAM,
    previous: last === undefined ? null : sha256(readRegular(join(directory(), last))),
  };
  const sign = (body: Uint8Array): Uint8Array => encodeReceipt(body, key.publicKey, signBytes(key, body));
  let receipt = sign(encodeReceiptBody(facts));
  // Nobody reads a longer receipt, and the sums of rows stay.
  if (receipt.length > MAX_BYTES) receipt = sign(encodeReceiptBody({ ...facts, ...withoutTables(proven) }));
  const path = join(directory(), `${String(number).padStart(10, "0")}-${proven.snapshot_id.slice(0, 8)}.json`);
  durableWrite(path, receipt);
  if (also === undefined) return path;
  const other = resolve(also);
  durableWrite(other, receipt, { mode: 0o644, exclusive: true });
  return other;
}

function withoutTables({ databases = [] }: Pick<ReceiptBody, "databases">): Pick<ReceiptBody, "databases"> {
  return { databases: databases.map(({ tables: _tables, ...database }) => database) };
}

/** Names of this user's receipts, the oldest first. */
function receiptNames(): string[] {
  return namesIfThere(directory())
    .filter((name) => NAME.test(name))
    .toSorted();
}

export interface OpenedReceipt {
  name: string;
  file: string;
  body: ReceiptBody;
  /** True if this user's key signed the receipt. */
  isOwn(): boolean;
}

/** Reads receipts by their names. Leaves out a receipt that cannot be read; the command `receipt verify` names the damage. */
function* opened(names: Iterable<string>): Generator<OpenedReceipt> {
  const own = pinnedKey();
  for (const name of names) {
    const file = join(directory(), name);
    try {
      const { body, bodyBytes, signature } = decodeReceipt(readRegular(file, { limit: MAX_BYTES }));
      yield { name, file, body, isOwn: () => own !== null && isSignedBy(own, bodyBytes, signature) };
    } catch {
      continue;
    }
  }
}

/** Returns this user's receipts about some repositories, the newest first. */
export function receiptsAbout(repositories: ReadonlySet<string>): OpenedReceipt[] {
  return [...opened(receiptNames().toReversed())].filter(({ body }) => repositories.has(body.repository_id));
}

/** Returns this user's first own receipt, since a time, of a restore of a snapshot into a folder; null if there is none. */
export function receiptSince(
  since: string,
  {
    repository_id: repository,
    snapshot_id: snapshot,
    target,
  }: Pick<ReceiptBody, "repository_id" | "snapshot_id" | "target">,
): OpenedReceipt | null {
  const isOfRestore = ({ body, isOwn }: OpenedReceipt): boolean =>
    body.snapshot_id === snapshot && body.target === target && body.made_at >= since && isOwn();
  return receiptsAbout(new Set([repository])).findLast(isOfRestore) ?? null;
}

/** Checks one of this user's receipts by its name. Throws `usage` for a name that no receipt has, and the errors of `verifyReceipt()`. */
export async function verifyOwnReceipt(name: string, options: VerifyReceiptOptions): Promise<VerifyReceiptResult> {
  if (NAME.test(name)) return verifyReceipt(join(directory(), name), options);
  throw new CairnError("usage", `${JSON.stringify(name.slice(0, 40))} is not the name of a receipt`, {
    hint: "for example 0000000001-1a2b3c4d.json",
  });
}

/** Adds the rows of databases to the snapshots of a list, as this user's newest receipts of these snapshots count them. */
export function withCountedRows(list: BackupList): BackupList {
  const shown = new Map(list.snapshots.map(({ snapshot_id: id }) => [id.slice(0, 8), id]));
  const counted = new Map<string, NonNullable<BackupSnapshot["counted"]>>();
  const idOf = (name: string): string | undefined => shown.get(name.slice(11, 19));
  const wanted = receiptNames()
    .slice(-MOST_READ)
    .toReversed()
    .values()
    .filter((name) => idOf(name) !== undefined && !counted.has(idOf(name)!));
  for (const { name, body, isOwn } of opened(wanted)) {
    const id = idOf(name)!;
    if (body.repository_id !== list.repository_id || body.snapshot_id !== id) continue;
    const databases = (body.databases ?? []).flatMap(({ tables, path, path_b64: raw }) =>
      tables === undefined ? [] : [{ path, ...(raw === undefined ? {} : { path_b64: raw }), tables }],
    );
    if (databases.length > 0 && isOwn()) counted.set(id, { at: body.made_at, databases });
  }
  const withRows = (each: BackupSnapshot): BackupSnapshot => {
    const rows = counted.get(each.snapshot_id);
    return rows === undefined ? each : { ...each, counted: rows };
  };
  return counted.size === 0 ? list : { ...list, snapshots: list.snapshots.map(withRows) };
}

/**
 * Checks beforehand that a receipt can be written to a file, and that the file lies outside of the target (a real
 * path). Throws `usage`; `permission` if this user cannot write there.
 */
export function requireReceiptPlace(also: string, target: Buffer): void {
  const file = resolve(also);
  const parent = dirname(file);
  const isThere = existsSync(parent);
  if (isThere && !statSync(parent).isDirectory())
    throw misplaced(file, `cannot be made: ${parent} is not a folder`, "name a file in a folder");
  const found = isThere ? lstatSync(file, { throwIfNoEntry: false }) : undefined;
  if (found?.isDirectory() === true) throw misplaced(file, "is a folder", "name a file that does not exist yet");
  if (found !== undefined) throw misplaced(file, "already exists", "name a file that does not exist yet, or remove it");
  if (isAtOrBelow(realPathOf(file), target))
    throw misplaced(
      file,
      "lies in the restored folder",
      "name a file outside of the folder: the receipt describes its content",
    );
  if (!isThere) throw misplaced(file, `cannot be made: there is no folder ${parent}`, "make that folder first");
  try {
    accessSync(parent, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw toCairnError(error, `write the receipt ${file}`);
  }
}

function misplaced(file: string, why: string, hint: string): CairnError {
  return new CairnError("usage", `the receipt ${file} ${why}`, { hint });
}

/**
 * Checks a receipt's signature with the given key or this user's own. Throws `damaged` if the signature is wrong,
 * `conflict` if another key signed it.
 */
export async function verifyReceipt(path: string, options: VerifyReceiptOptions): Promise<VerifyReceiptResult> {
  const file = resolve(path);
  const hint = "do not rely on this receipt; copy it again from the machine that made it";
  const decode = (bytes: Uint8Array) => ({ ...decodeReceipt(bytes), sha256: sha256(bytes) });
  if (statSync(file, { throwIfNoEntry: false })?.isFile() === false)
    throw new CairnError("usage", `${file} is not a regular file`, { hint: "name the file of a receipt" });
  const read = readRecord(file, decode, { maxBytes: MAX_BYTES, hint });
  if (read === null) throw new CairnError("not_found", `there is no receipt ${file}`);
  const { body, bodyBytes, publicKey, signature } = read;
  if (!isSignedBy(publicKey, bodyBytes, signature))
    throw new CairnError("damaged", `${file} was changed after it was signed: its signature does not match`, { hint });
  const shown = Buffer.from(publicKey).toString("base64");
  const wanted = options.key === undefined ? pinnedKey() : namedKey(options.key);
  const isTrusted = wanted !== null && Buffer.compare(wanted, publicKey) === 0;
  if (options.key !== undefined && !isTrusted)
    throw new CairnError("conflict", `${file} is signed by a key other than the one that was given: ${shown}`);
  if (!isTrusted)
    options.onWarning?.(
      `${file} is signed by an unknown key, so anybody could have made it; if you know the signer's public key, check with --key KEY`,
    );
  const rewritten = rewrittenSince(body);
  return { path: file, trusted: isTrusted, public_key: shown, receipt: { ...body }, rewritten, sha256: read.sha256 };
}

/** Looks for the point of a receipt in this user's workspaces: paths may have been removed from it since the restore. */
function rewrittenSince({ save_point_id: id, state_digest: digest }: ReceiptBody): VerifyReceiptResult["rewritten"] {
  if (id === null) return null;
  const registered = [...listRegistered(), ...listDaemons(), ...listSelfContained()];
  const roots = new Set(
    registered.flatMap(({ registration }) => (registration === null ? [] : [controlOf(registration)])),
  );
  for (const root of roots) {
    const known = rewritingsOf(controlPaths(root), id as SavePointId);
    const at = known.findIndex(({ digest_before: before }) => before === digest);
    if (at < 0) continue;
    const since = known.slice(at);
    const paths = since.flatMap((each) => each.paths.map((path) => displayPath(rawPath(path))));
    return { at: since[0]!.at, paths };
  }
  return null;
}

/** None if the point or its records cannot be read. */
function rewritingsOf(control: ControlPaths, id: SavePointId): readonly Rewriting[] {
  try {
    const found = allPoints(control).flatMap(({ points }) => points.byId(id) ?? []);
    return found[0]?.descriptor.rewritten ?? [];
  } catch {
    return [];
  }
}

/** The public half of this user's own key; null if there is none. */
function pinnedKey(): Uint8Array | null {
  const bytes = readSmallFile(keyFile(), MAX_BYTES);
  if (bytes === null) return null;
  try {
    return signingKeyOf(Buffer.from(bytes.toString("latin1").trim(), "base64")).publicKey;
  } catch {
    return null;
  }
}

/** 32 bytes from hex, base64, or a file with either. */
function namedKey(text: string): Uint8Array {
  const direct = keyBytes(text);
  if (direct !== null) return direct;
  let content: string;
  try {
    content = readRegular(text, { named: true }).toString("latin1");
  } catch (error) {
    throw toCairnError(
      error,
      `the key ${JSON.stringify(text.slice(0, 80))} is neither a public key nor a file with one`,
    );
  }
  const read = keyBytes(content);
  if (read === null) throw new CairnError("usage", `${text} holds no public key: expected 32 bytes in base64 or hex`);
  return read;
}

function keyBytes(text: string): Uint8Array | null {
  const trimmed = text.trim();
  const bytes = /^[0-9a-f]{64}$/i.test(trimmed) ? Buffer.from(trimmed, "hex") : Buffer.from(trimmed, "base64");
  return bytes.length === 32 && /^[A-Za-z0-9+/]{43}=?$|^[0-9a-f]{64}$/i.test(trimmed) ? Uint8Array.from(bytes) : null;
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
