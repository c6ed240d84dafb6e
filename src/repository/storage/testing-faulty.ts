import { setTimeout as sleep } from "node:timers/promises";
import { CairnError } from "../../errors.ts";
import {
  labelOf,
  type ByteRange,
  type FileKind,
  type SaveOptions,
  type Storage,
  type StorageCall,
  type StorageOperation,
  type StoredFile,
} from "./storage.ts";

/**
 * Kinds of fault. A truncated or lost list lacks files that exist.
 * - `flip`, `flip_last`: one bit of the loaded bytes is wrong, in the middle or in the last byte
 * - `truncate`: half of the loaded bytes is missing · `lose`: a saved file is gone, a loaded file is `not_found`
 * - `fail`, `no_space`: the call does nothing and throws `io` or `no_space` · `delay`: the call takes 0.1 s longer
 * - `late_success`: the call does its work, then throws `io`
 */
export type FaultKind = "flip" | "flip_last" | "truncate" | "lose" | "fail" | "no_space" | "late_success" | "delay";

export interface Fault {
  readonly operation: StorageOperation;
  readonly kind?: FileKind;
  readonly name?: string;
  readonly fault: FaultKind;
  /** Number of matching calls that succeed before the first fault. Default 0. */
  readonly after?: number;
  /** Number of calls that get the fault. Default 1. */
  readonly times?: number;
  /** True: only the first load of the same bytes gets the fault. */
  readonly firstOfEach?: boolean;
}

interface Armed {
  readonly rule: Fault;
  skip: number;
  left: number;
  readonly struck: Set<string>;
}

/** Injects the armed faults, and passes all other calls to the inner storage. */
export class FaultyStorage implements Storage {
  readonly #inner: Storage;
  #faults: Armed[] = [];
  /** Number of calls since the last `disarm`, by operation and kind (`load index`). */
  readonly calls = new Map<string, number>();

  constructor(inner: Storage, faults: readonly Fault[] = []) {
    this.#inner = inner;
    for (const fault of faults) this.arm(fault);
  }

  get location(): string {
    return this.#inner.location;
  }

  arm(fault: Fault): void {
    this.#faults.push({ rule: fault, skip: fault.after ?? 0, left: fault.times ?? 1, struck: new Set() });
  }

  disarm(): void {
    this.#faults = [];
    this.calls.clear();
  }

  async save(kind: FileKind, name: string, bytes: Uint8Array, options?: SaveOptions): Promise<void> {
    const fault = await this.#strike("save", kind, name);
    if (fault === "lose") return;
    await this.#inner.save(kind, name, damage(bytes, fault), options);
    late(fault);
  }

  async saveFile(kind: FileKind, name: string, temporaryPath: string, options?: SaveOptions): Promise<void> {
    const fault = await this.#strike("saveFile", kind, name);
    await this.#inner.saveFile(kind, name, temporaryPath, options);
    if (fault === "lose") await this.#inner.remove(kind, name);
    late(fault);
  }

  async load(kind: FileKind, name: string, range?: ByteRange, call?: StorageCall): Promise<Uint8Array> {
    const fault = await this.#strike("load", kind, name, range);
    if (fault === "lose") throw new CairnError("not_found", `no ${labelOf(kind, name)} (a fault of the test)`);
    const bytes = await this.#inner.load(kind, name, range, call);
    late(fault);
    return damage(bytes, fault);
  }

  async list(kind: FileKind, call?: StorageCall): Promise<StoredFile[]> {
    const fault = await this.#strike("list", kind, "");
    const found = await this.#inner.list(kind, call);
    late(fault);
    return fault === "lose" || fault === "truncate" ? found.slice(0, found.length >> 1) : found;
  }

  async exists(kind: FileKind, name: string, call?: StorageCall): Promise<boolean> {
    const fault = await this.#strike("exists", kind, name);
    return fault === "lose" ? false : this.#inner.exists(kind, name, call);
  }

  async remove(kind: FileKind, name: string, call?: StorageCall): Promise<void> {
    const fault = await this.#strike("remove", kind, name);
    if (fault === "lose") return;
    await this.#inner.remove(kind, name, call);
    late(fault);
  }

  async sync(kinds: readonly FileKind[], call?: StorageCall): Promise<void> {
    const faults: (FaultKind | null)[] = [];
    for (const kind of kinds) faults.push(await this.#strike("sync", kind, ""));
    await this.#inner.sync(kinds, call);
    faults.forEach(late);
  }

  async now(call?: StorageCall): Promise<number | null> {
    return (await this.#inner.now?.(call)) ?? null;
  }

  async #strike(
    operation: StorageOperation,
    kind: FileKind,
    name: string,
    range?: ByteRange,
  ): Promise<FaultKind | null> {
    const call = `${operation} ${kind}`;
    this.calls.set(call, (this.calls.get(call) ?? 0) + 1);
    for (const armed of this.#faults) {
      const rule = armed.rule;
      if (rule.operation !== operation || armed.left === 0) continue;
      if (rule.kind !== undefined && rule.kind !== kind) continue;
      if (rule.name !== undefined && rule.name !== name) continue;
      if (armed.skip > 0) {
        armed.skip--;
        continue;
      }
      const which = `${kind} ${name} ${range?.offset} ${range?.length}`;
      if (rule.firstOfEach === true && armed.struck.has(which)) continue;
      armed.struck.add(which);
      armed.left--;
      if (rule.fault === "fail") throw new CairnError("io", `${operation} of ${kind} failed (a fault of the test)`);
      if (rule.fault === "no_space")
        throw new CairnError("no_space", `${operation} of ${kind}: the disk is full (a fault of the test)`);
      if (rule.fault === "delay") await sleep(100);
      return rule.fault;
    }
    return null;
  }
}

function late(fault: FaultKind | null): void {
  if (fault === "late_success") throw new CairnError("io", "failed after the work was done (a fault of the test)");
}

function damage(bytes: Uint8Array, fault: FaultKind | null): Uint8Array {
  if (fault === "truncate") return bytes.subarray(0, bytes.length >> 1);
  if ((fault !== "flip" && fault !== "flip_last") || bytes.length === 0) return bytes;
  const copy = Uint8Array.from(bytes);
  copy[fault === "flip" ? copy.length >> 1 : copy.length - 1]! ^= 1;
  return copy;
}
