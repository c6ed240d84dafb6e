import { TAR_END, tarHeader, TarLinks, tarPadding } from "../formats/payloads/tar.ts";
import type { TreeNode } from "../formats/restic/tree.ts";
import type { ByteSink, Output, OutputEntry } from "./output.ts";

/** Writes a tar archive. Keeps all metadata; a second name of a file becomes a hard link. */
export class TarOutput implements Output {
  readonly lacks = "sockets";
  readonly #links = new TarLinks();
  readonly #sink: ByteSink;

  constructor(sink: ByteSink) {
    this.#sink = sink;
  }

  next(path: Uint8Array, node: TreeNode): OutputEntry | null {
    const linkTo = this.#links.before(path, node);
    const header = tarHeader(path, node, linkTo);
    if (header === null) return null;
    const needsContent = linkTo === null && node.type === "file";
    const write: OutputEntry["write"] = async (content) => {
      await this.#sink.write(header);
      if (!needsContent) return;
      for await (const piece of content!) await this.#sink.write(piece);
      await this.#sink.write(tarPadding(node.size));
    };
    return { needsContent, write };
  }

  async end(): Promise<void> {
    await this.#sink.write(TAR_END);
  }
}
