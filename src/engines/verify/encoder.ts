import { ByteWriter } from "../../formats/bytes.ts";
import { type Arena, arenaOver } from "../../native.ts";

/** A writer and the arena over its bytes, made anew only when the writer has grown. */
export class Encoder {
  readonly writer = new ByteWriter(64 * 1024);
  #arena: Arena | undefined;

  arena(): Arena {
    if (this.#arena?.bytes !== this.writer.bytes) this.#arena = arenaOver(this.writer.bytes);
    return this.#arena;
  }
}
