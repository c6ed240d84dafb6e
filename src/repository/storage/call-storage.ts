import type { Storage, StorageCall } from "./storage.ts";
import { type AskedCall, type RunCall, WrappedStorage } from "./wrapped.ts";

/**
 * A storage as it is for one operation: each call is made with its signal and tells it of retries. Connections, limits and
 * caches are those of the storage, for all operations together, and so is closing it.
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
