import { ScanMemory } from "../../archive/scan/scan-memory.ts";
import { lstatSync } from "node:fs";
import { append } from "../../append.ts";
import { asVerifying, scan, type ScanResult } from "../../archive/scan/scan.ts";
import type {
  Aspect,
  CheckedProbe,
  LeftOut,
  ProofSource,
  RestoreBackupOptions,
  RestoreProof,
} from "../../contract/index.ts";
import { advice, CairnError, call, type Hint, option, toCairnError } from "../../errors.ts";
import { hex } from "../../formats/bytes.ts";
import { beside, SIDECARS } from "../../formats/sqlite-header.ts";
import type { ProbeRecord, SnapshotChecks } from "../../formats/records/checks.ts";
import { type IgnoreRecord, NO_RULES } from "../../fs/ignore.ts";
import { displayPath, joinRaw, pathOfDisplayed, printablePath } from "../../fs/paths/safe-path.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import { unlessOthersWrote } from "../../workspace/place/owners.ts";
import { checkedProbe } from "../open/checks.ts";
import { reading, type Session } from "../open/session.ts";
import { pointOf } from "../open/snapshots.ts";
import { type Compared, compareWritten } from "./compare.ts";
import { proveDatabases, proveRows } from "./prove-databases.ts";
import { receiptRow, requireReceiptPlace, writeReceipt } from "./receipt.ts";
import type { WriterParts, Written } from "./write-snapshot.ts";
import { userStateDirectory } from "../../fs/users.ts";

/** Runs the snapshot's probes on the restored folder; null: it is not proven. Called before the receipt is signed. */
export type Ask = (probes: readonly ProbeRecord[], folder: string | null) => Promise<CheckedProbe[]>;

/** A folder that was restored, and the snapshot that it should be. */
export interface ReadBack extends Pick<WriterParts, "access" | "listed" | "content"> {
  options: Pick<RestoreBackupOptions, "proveFrom" | "receipt" | "signal" | "onProgress" | "onWarning">;
  /** Questions of the snapshot to a restored copy; null or absent: none. */
  checks?: SnapshotChecks | null | undefined;
}

/** The options that decide whether a restore gets a proof and a receipt. */
type Asked = Pick<RestoreBackupOptions, "receipt" | "prove" | "proveFrom" | "overwrite"> & {
  keepPresent?: boolean;
};

/** Checks before anything is read that the requested proof and receipt are possible. Throws `usage`. */
export function checkProof(asked: Asked, target: Buffer): void {
  if (asked.prove === false && asked.proveFrom !== undefined)
    throw new CairnError("usage", `without a proof nothing is read again from ${asked.proveFrom}`, {
      hint: advice`leave out ${option({ prove: false }, "--prove no")} or ${option("proveFrom", "--prove")}`,
    });
  if (asked.receipt === undefined) return;
  if (asked.prove === false)
    throw noReceipt("files that are not read again get no receipt", without({ prove: false }, "--prove no"));
  if (asked.keepPresent === true)
    throw noReceipt("a folder that keeps files beside the snapshot's gets no receipt", without("keepPresent"));
  if (asked.overwrite !== undefined)
    throw noReceipt("a folder that may keep files beside the snapshot's gets no receipt", without("overwrite"));
  requireReceiptPlace(asked.receipt, target);
}

/** Checks before anything is written whether this restore can get a receipt. Throws `usage`. */
export function checkReceiptOf(
  { receipt }: Asked,
  { listed, content, isWhole }: Pick<ReadBack, "listed" | "content"> & { isWhole: boolean },
): void {
  if (receipt === undefined) return;
  if (!isWhole) throw noReceipt("parts of a snapshot get no receipt", "name no folder, paths or patterns");
  if (content.manifest?.complete === true) return;
  const what = content.manifest === null ? "has no digest to compare with" : "lacks some of the saved files";
  throw noReceipt(`snapshot ${listed.id.slice(0, 8)} gets no receipt: it ${what}`, "choose another snapshot");
}

const without = (...of: Parameters<typeof option>): Hint => advice`leave out ${option(...of)}`;

function noReceipt(why: string, hint: Hint): CairnError {
  return new CairnError("usage", why, { hint: advice`${hint}, or leave out ${option("receipt")}` });
}

/** Warns that a requested receipt is not written because there is no proof. */
export function warnUnproven({ receipt, onWarning }: ReadBack["options"]): void {
  if (receipt !== undefined)
    onWarning?.("no receipt was written: the restored files could not be proven equal to the snapshot");
}

/** True if the written folder is to be read again. `isWhole`: the whole snapshot is written. */
export function isToBeProven({ prove, proveFrom }: Asked, isWhole: boolean): boolean {
  return prove ?? (proveFrom !== undefined || isWhole);
}

/** The result of reading a folder again. */
interface FoundAgain {
  found: ScanResult;
  state: string;
  /** Null if the state digest differs from the recorded one, or none is recorded. */
  proof: Omit<RestoreProof, "receipt" | "databases" | "rows" | "probes"> | null;
  from: ProofSource;
  /** Entries that exist but could not be read: the digests lack them. */
  notRead: LeftOut[];
}

/** True if this user may not read the entry, which says nothing about the disk's content. */
function isRefusal({ reason }: { reason: string }): boolean {
  return reason === "EACCES" || reason === "EPERM";
}

/** Aspects that the state digest does not cover. */
const BEYOND_STATE: ReadonlySet<Aspect> = new Set<Aspect>(["owner", "times", "xattrs", "links"]);

/** True if the omitted entry changes the state digest. */
function isOfState({ aspects }: LeftOut): boolean {
  return aspects === undefined || aspects.some((aspect) => !BEYOND_STATE.has(aspect));
}

/** Reads a folder again; before reading from the disk everything was flushed. `recorded`: the expected state digest. */
async function readBack(
  { access, content, options }: ReadBack,
  folder: Buffer,
  {
    recorded,
    memory,
    ...left
  }: {
    recorded: string | null;
    memory: ScanMemory;
    rules: IgnoreRecord;
    skip: readonly string[];
    crossMounts?: boolean;
  },
): Promise<FoundAgain> {
  const found = await scan({
    request: { root: folder, readAgain: options.proveFrom ?? "disk", ...left },
    cache: null,
    memory,
    chunkerPolynomial: access.repository.chunkerPolynomial,
    signal: options.signal,
    onProgress: (progress) => options.onProgress?.(asVerifying(progress)),
  });
  const { omitted, keptInMemory } = found.notes;
  const state = hex(found.state);
  return {
    found,
    state,
    proof:
      state === recorded
        ? { state_digest: state, metadata_equal: hex(found.meta) === content.manifest?.metadataDigest }
        : null,
    from: options.proveFrom === "memory" || keptInMemory > 0 ? "memory" : "disk",
    notRead: omitted.map(({ path, reason }) => ({
      ...displayPath(path),
      reason: "unreadable",
      detail: `it was written, and cannot be read again: ${reason}`,
    })),
  };
}

/** A new folder that was filled from a snapshot. */
export interface Filled extends ReadBack, Pick<WriterParts, "session" | "paths"> {
  /** The state digest of the whole; null if only parts were written, or if none is recorded. */
  recorded: string | null;
}

/** The outcome of a proof. */
export interface Proven {
  proof: Omit<RestoreProof, "receipt"> | null;
  /** Null if nothing was read again. */
  from: ProofSource | null;
  /** Number of files that could not be compared; null if nothing was read again. */
  untold: number | null;
}

/** True if each entry will be compared with its tree, because no digest of the whole can be equal or is recorded. */
export function isComparedByEntry({ recorded }: Pick<Filled, "recorded">, leftOut: readonly LeftOut[]): boolean {
  return recorded === null || leftOut.some(isOfState);
}

/**
 * Reads a new folder again and proves it by its digest. Without a usable digest, or if entries could not be made or
 * read, compares each entry that is not listed as left out. Throws `damaged` if an entry differs although no loss is
 * known.
 */
export async function proveNewFolder(what: Filled, folder: Buffer, { written, leftOut }: Written): Promise<Proven> {
  const { access, session, options, recorded } = what;
  const isCompared = isComparedByEntry(what, leftOut);
  await using memory = new ScanMemory();
  const again = await readBack(what, folder, { recorded, memory, rules: NO_RULES, skip: [] });
  const { found, proof, from, notRead } = again;
  if (proof !== null) return { proof: await withDatabases(what, folder, { found, proof }), from, untold: 0 };
  append(leftOut, notRead);
  const { omitted } = found.notes;
  const wrongly = omitted.find((each) => !isRefusal(each));
  // A missing right to read says nothing about disk or memory.
  if (wrongly !== undefined)
    throw otherwise(
      what,
      `with an unreadable entry at ${printablePath(wrongly.path)} (${wrongly.reason})`,
      omitted.length,
    );
  const compare = async ({ reader }: Session): Promise<Compared> =>
    compareWritten(reader, found, {
      folder,
      signal: options.signal,
      content: what.content,
      chosen: what.paths,
      lost: written.damaged.map(({ path }) => path),
      notSet: written.notSet,
      others: "nowhere",
    });
  // Other processes may have used the repository since the write: the trees are read under a new lock.
  const { wrong, unlike, untold } = isCompared
    ? await compare(session)
    : await reading(access, { ...options, area: session.area }, compare);
  if (wrong.length > 0) throw otherwise(what, `differently at ${printablePath(wrong[0]!)}`, wrong.length);
  append(leftOut, unlike);
  if (!isComparedByEntry(what, leftOut))
    throw otherwise(what, `with state digest ${again.state}, expected was ${recorded}`);
  // Without a recorded digest the pieces were compared as they were written.
  return { proof: null, from, untold: untold + (recorded === null ? 0 : countUntold(folder, found)) };
}

/** Counts files that could not be read again, except those whose owner may not read them: their pieces were compared as they were written. */
function countUntold(folder: Buffer, { notes }: ScanResult): number {
  const wasCompared = ({ path }: { path: Uint8Array }): boolean => {
    const facts = lstatSync(joinRaw(folder, path), { throwIfNoEntry: false });
    return facts?.isFile() === true && (facts.mode & 0o400) === 0;
  };
  return notes.omitted.filter((each) => !wasCompared(each)).length;
}

function otherwise({ listed, recorded }: Filled, how: string, places = 1): CairnError {
  const more = places > 1 ? ` and ${places - 1} more places` : "";
  return new CairnError(
    "damaged",
    `the restored content of snapshot ${listed.id.slice(0, 8)} reads back ${how}${more}`,
    {
      hint:
        recorded === null
          ? advice`nothing was put in place; verify the repository (${call("backup verify", "verify")}) and check this machine's disk and memory`
          : advice`nothing was put in place; run ${call("backup verify", "verify")}. If it finds damage, ${option({ prove: false }, "--prove no")} restores the readable content; if not, check this machine's disk and memory`,
    },
  );
}

/** A workspace's folder that was made equal to a snapshot, or chosen paths of it. */
export interface FilledInPlace extends ReadBack {
  folder: Buffer;
  /** Raw paths that were chosen; null: everything. */
  chosen: readonly Uint8Array[] | null;
  keepPresent: boolean;
  leftOut: LeftOut[];
  /** Raw paths of databases that were written and read again through SQLite, so that their files differ. */
  through: readonly Uint8Array[];
  /** Rules of the folder, and entries in it that are never part of a point. */
  left: { rules: IgnoreRecord; skip: readonly string[]; crossMounts: boolean };
}

/** The outcome of a proof in place, with all that is left out. */
export type ProvenInPlace = Omit<Proven, "proof"> & {
  proof: RestoreProof | null;
  leftOut: LeftOut[];
  isEqual: boolean;
};

/**
 * Reads the folder again. If no digest of the whole proves it, compares each entry and lists those that differ: other
 * programs may have written meanwhile.
 */
export async function proveInPlace(what: FilledInPlace): Promise<ProvenInPlace> {
  const { access, content, options, leftOut, through, folder, chosen, keepPresent } = what;
  const recorded =
    chosen === null && !keepPresent && through.length === 0 ? (content.manifest?.stateDigest ?? null) : null;
  await using memory = new ScanMemory();
  const { found, state, proof, from, notRead } = await readBack(what, folder, { ...what.left, recorded, memory });
  // A digest says nothing about unreadable entries, which may differ from the snapshot.
  if (proof !== null && notRead.length === 0) {
    const looked = await withDatabases(what, folder, { found, proof });
    const shown = await signed(what, looked, { from, leftOut, target: folder.toString("utf8") });
    return { proof: shown, leftOut, from, untold: 0, isEqual: true };
  }
  warnUnproven(options);
  const known = leftOut.map((each) => ({ path: pathOfDisplayed(each), aspects: each.aspects ?? [] }));
  const { wrong, unlike, untold } = await reading(access, options, async ({ reader }) =>
    compareWritten(reader, found, {
      folder,
      signal: options.signal,
      content,
      chosen,
      lost: [
        ...known.filter(({ aspects }) => aspects.length === 0).map(({ path }) => path),
        ...through.flatMap((path) => ["", ...SIDECARS].map((ending) => beside(path, ending))),
      ],
      notSet: known,
      others: keepPresent ? "anywhere" : "beside what was chosen",
    }),
  );
  const isKnown = ({ path, path_b64 }: LeftOut): boolean =>
    leftOut.some((each) => each.path === path && each.path_b64 === path_b64);
  const all = [...leftOut, ...notRead.filter((each) => !isKnown(each)), ...unlike];
  for (const path of wrong) {
    const detail = `it reads back different from the snapshot: ${WRITTEN_TO}`;
    all.push({ ...displayPath(path), reason: "changed_since", detail });
  }
  const isChanged = recorded !== null && all.length === 0;
  if (isChanged) {
    const detail = `the folder reads back with state digest ${state}, but was saved with ${recorded}: ${WRITTEN_TO}`;
    all.push({ path: "", reason: "changed_since", detail });
  }
  const isEqual = wrong.length === 0 && untold === 0 && !isChanged;
  return { proof: null, leftOut: all, from, untold: isChanged ? 0 : untold, isEqual };
}

const WRITTEN_TO = "another program wrote to it meanwhile, or the disk does not keep the data written to it";

async function withDatabases(
  { access, content, options, checks }: ReadBack,
  folder: Buffer,
  { found, proof }: { found: ScanResult; proof: Omit<RestoreProof, "receipt" | "databases" | "rows" | "probes"> },
): Promise<Omit<RestoreProof, "receipt">> {
  const databases = await proveDatabases(folder, found, { ...options, labels: content.manifest?.labels ?? [] });
  const rules = checks?.rows ?? [];
  // A user who may only read a local repository can make no folder there.
  const scratch = rules.length === 0 ? "" : newWorkDirectory(access.workDirectory());
  const rows = await proveRows(folder, found, { ...options, rules, scratch });
  return { ...proof, databases, rows, probes: (checks?.probes ?? []).map((probe) => checkedProbe(probe, null)) };
}

/** Adds a receipt to a proof. The proof gets no receipt if the snapshot lacks content of its source, so that the whole is not proven. */
export async function signed(
  { access, listed, content, options }: ReadBack,
  proof: Omit<RestoreProof, "receipt">,
  more: { from: ProofSource; leftOut: readonly LeftOut[]; target: string },
): Promise<RestoreProof> {
  if (content.manifest?.complete !== true) return { ...proof, receipt: null };
  try {
    const receipt = await writeReceipt(
      {
        repository_id: access.repository.id,
        snapshot_id: listed.id,
        save_point_id: pointOf(listed.snapshot),
        state_digest: proof.state_digest,
        metadata_digest: content.manifest.metadataDigest,
        metadata_equal: proof.metadata_equal,
        read_from: more.from,
        left_out: more.leftOut.length,
        databases: proof.databases.map(receiptRow),
        ...(proof.rows.length === 0 ? {} : { rows: proof.rows.map(({ files: _files, ...counts }) => counts) }),
        ...(proof.probes.length === 0 ? {} : { probes: proof.probes }),
        target: more.target,
      },
      options.receipt,
    );
    return { ...proof, receipt };
  } catch (error) {
    // The folder is in place and proven in any case.
    const { message, hint } = toCairnError(unlessOthersWrote([userStateDirectory()], error));
    options.onWarning?.(`no receipt was written: ${message}${hint === undefined ? "" : `; ${hint}`}`);
    return { ...proof, receipt: null };
  }
}
