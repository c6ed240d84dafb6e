import type { Storage, StorageCall } from "./storage.ts";
import { type AskedCall, type RunCall, WrappedStorage } from "./wrapped.ts";

/**
 * A storage for one operation: each call gets the operation's signal and reports its retries. Connections, limits,
 * caches and closing stay with the inner storage, which other operations share.
 */
export class CallStorage extends WrappedStorage {
  readonly #call: StorageCall;

  constructor(inner: Storage, call: StorageCall) {
    super(inner);
    this.#call = call;
    delete this.close;
    if (inner.clearTemporaries !== undefined) this.clearTemporaries = (ageMs) => inner.clearTemporaries!(ageMs, call);
  }

  protected override through<T, Call extends StorageCall>(asked: AskedCall<Call>, run: RunCall<T, Call>): Promise<T> {
    return run({ ...asked.call, ...this.#call } as Call);
  }
}
