/// <reference lib="esnext.disposable" preserve="true" />
/**
 * The public library. Everything exported here is promised: names, meanings and error codes.
 * What each call does, takes and gives stands in `operations/contract.ts`.
 */
import { openLibrary } from "./compose.ts";
import type {
  AdoptOptions,
  BackupRepository,
  CairnLibrary,
  CallOptions,
  Client,
  EngineResult,
  EngineType,
  InitOptions,
  InitRepositoryOptions,
  InspectOptions,
  InspectResult,
  OpenOptions,
  RelocateOptions,
  RelocateResult,
  RepositoryOptions,
  VerifyReceiptOptions,
  VerifyReceiptResult,
  WorkspaceInfo,
} from "./operations/contract.ts";

export { CairnError, ERROR_TABLE } from "./errors.ts";
export type { ErrorCode, ErrorOptions, ErrorRow } from "./errors.ts";
export type { ControlId, SavePointId, WorkspaceId } from "./ids.ts";
export type * from "./operations/contract.ts";

let library: Promise<CairnLibrary> | undefined;

async function loaded(): Promise<CairnLibrary> {
  library ??= openLibrary();
  return library;
}

/** The best engine for a path, with the reason for each one passed over. Leaves nothing behind. */
export async function detectEngine(path: string, options?: CallOptions): Promise<EngineResult> {
  return (await loaded()).detectEngine(path, options);
}

/** Resolves when that engine works there, else throws `unsupported`. */
export async function validateEngine(path: string, type: EngineType, options?: CallOptions): Promise<void> {
  return (await loaded()).validateEngine(path, type, options);
}

/** Makes `<path>/main` and `<path>/.cairn`. Throws `already_exists` unless the path is absent or empty. */
export async function init(path: string, options?: InitOptions): Promise<Client> {
  return (await loaded()).init(path, options);
}

/** Keeps an existing folder, where it is. Throws `already_exists`, `refused`. */
export async function adopt(path: string, options?: AdoptOptions): Promise<Client> {
  return (await loaded()).adopt(path, options);
}

/** Exactly that control directory, workspace or self-contained root. Throws `not_a_workspace`. */
export async function open(path: string, options?: OpenOptions): Promise<Client> {
  return (await loaded()).open(path, options);
}

/** `open`, or `init` where there is nothing; any number of processes at once end with one id. */
export async function openOrInit(path: string, options?: InitOptions): Promise<Client> {
  return (await loaded()).openOrInit(path, options);
}

/** `open`, or `adopt` where there is nothing; race-safe likewise. */
export async function openOrAdopt(path: string, options?: AdoptOptions): Promise<Client> {
  return (await loaded()).openOrAdopt(path, options);
}

/** The nearest workspace at or above a path, or null. */
export async function find(path: string, options?: CallOptions): Promise<string | null> {
  return (await loaded()).find(path, options);
}

/** Any file that Cairn writes, decoded, without secrets. Throws `unsupported`, `damaged`, `newer_version`. */
export async function inspect(file: string, options?: InspectOptions): Promise<InspectResult> {
  return (await loaded()).inspect(file, options);
}

/** The folders that this user keeps, missing ones too. */
export async function listWorkspaces(options?: CallOptions): Promise<WorkspaceInfo[]> {
  return (await loaded()).listWorkspaces(options);
}

/** Says that a folder was moved; its points follow. Throws `not_found`, `conflict`. */
export async function relocate(oldPath: string, newPath: string, options?: RelocateOptions): Promise<RelocateResult> {
  return (await loaded()).relocate(oldPath, newPath, options);
}

/** Forgets where a folder's points lay, when they are gone for good. Throws `conflict` when they are there. */
export async function forget(path: string, options?: CallOptions): Promise<boolean> {
  return (await loaded()).forget(path, options);
}

/** Makes an empty repository off the machine, in restic's format. Throws `already_exists`. */
export async function initRepository(options: InitRepositoryOptions): Promise<BackupRepository> {
  return (await loaded()).initRepository(options);
}

/** Opens a repository, whoever made it. Throws `not_found`, `wrong_password`. */
export async function openRepository(options: RepositoryOptions): Promise<BackupRepository> {
  return (await loaded()).openRepository(options);
}

/** Checks the signature of a receipt that a restore wrote. Throws `damaged`, `conflict`. */
export async function verifyReceipt(path: string, options?: VerifyReceiptOptions): Promise<VerifyReceiptResult> {
  return (await loaded()).verifyReceipt(path, options);
}
