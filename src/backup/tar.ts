import { exactNode, losslessByPath } from "../archive/write/exact-nodes.ts";
import type { CallOptions } from "../contract/words.ts";
import { CairnError } from "../errors.ts";
import { latin1 } from "../formats/bytes.ts";
import type { TreeNode, TreeNodes } from "../formats/restic/tree.ts";
import { plural } from "../formats/sizes.ts";
import { TAR_END, tarHeader, TarLinks, tarPadding } from "../formats/payloads/tar.ts";
import { quotedPath } from "../fs/paths/safe-path.ts";
import { nodesBelow } from "../workspace/points/listed-entry.ts";
import { savedNodes, type SnapshotContent } from "./open/content.ts";
import { readNodes } from "../archive/databases/nodes.ts";
import type { PlacedDatabases } from "../archive/databases/placed-databases.ts";
import { pieces, piecesOf } from "./pieces.ts";
import type { Session } from "./open/session.ts";

/** Files whose content is fetched at once are at most this many, or hold about this many bytes. */
const BATCH_FILES = 1000;
const BATCH_BYTES = 32 * 1024 * 1024;
/** Least length of a piece that is handed over. */
const PIECE_BYTES = 256 * 1024;
const NOTHING = new Uint8Array(0);

interface FoundPlace {
  saved: SnapshotContent;
  /** raw, relative to the root of the saved folder */
  path: Uint8Array;
  /** null for the whole saved folder */
  node: TreeNode | null;
}

interface Entry {
  header: Uint8Array;
  path: Uint8Array;
  node: TreeNode;
  /** ids of its content; empty for another name of an earlier file */
  content: Uint8Array;
}

/**
 * Hands over a tar archive of a path and everything below it, with names relative to the saved folder's root. Leaves
 * sockets out with a warning. Throws `damaged` if content cannot be read; the archive then lacks its end.
 */
export async function handTar(
  session: Session,
  found: FoundPlace,
  { signal, onWarning, hand }: CallOptions & { hand: (piece: Uint8Array) => Promise<void> },
): Promise<void> {
  const lossless = losslessByPath(found.saved.manifest?.lossless ?? []);
  const links = new TarLinks();
  const writing = new TarWriting(session, { placed: found.saved.placed, signal }, hand);
  const sockets: Uint8Array[] = [];
  const [unplaced] = found.saved.placed?.damaged ?? [];
  if (unplaced !== undefined) throw unplaced.error;
  for await (const each of entriesOf(session, found, signal)) {
    const { path } = each;
    const node = exactNode(each.node, lossless.get(latin1(path)));
    const linkTo = links.before(path, node);
    const header = tarHeader(path, node, linkTo);
    if (header === null) sockets.push(path);
    else await writing.add({ header, path, node, content: linkTo === null ? (node.content ?? NOTHING) : NOTHING });
  }
  await writing.end();
  if (sockets.length > 0)
    onWarning?.(
      `not in the archive, because tar cannot store sockets: ${plural(sockets.length, "entry")}, for example ${quotedPath(sockets[0]!)}`,
    );
}

async function* entriesOf(
  session: Session,
  { saved, path, node }: FoundPlace,
  signal: AbortSignal | undefined,
): AsyncGenerator<{ path: Uint8Array; node: TreeNode }> {
  if (node !== null) yield { path, node };
  if (node !== null && node.subtree === undefined) return;
  await session.bring([node?.subtree ?? saved.root]);
  const list = async (tree: Uint8Array): Promise<TreeNodes> => readNodes(session.reader, tree);
  const nodes = node === null ? await savedNodes(session.reader, saved) : await list(node.subtree!);
  yield* nodesBelow({ nodes, path, signal }, list);
}

class TarWriting {
  readonly #session: Session;
  readonly #of: { placed: PlacedDatabases | undefined; signal: AbortSignal | undefined };
  readonly #hand: (piece: Uint8Array) => Promise<void>;
  #batch: Entry[] = [];
  #batchBytes = 0;
  #ready: Uint8Array[] = [];
  #readyBytes = 0;

  constructor(
    session: Session,
    of: { placed: PlacedDatabases | undefined; signal: AbortSignal | undefined },
    hand: (piece: Uint8Array) => Promise<void>,
  ) {
    this.#session = session;
    this.#of = of;
    this.#hand = hand;
  }

  async add(entry: Entry): Promise<void> {
    this.#batch.push(entry);
    this.#batchBytes += entry.content.length === 0 ? 0 : entry.node.size;
    if (this.#batch.length >= BATCH_FILES || this.#batchBytes >= BATCH_BYTES) await this.#writeBatch();
  }

  async end(): Promise<void> {
    await this.#writeBatch();
    await this.#put(TAR_END);
    if (this.#readyBytes > 0) await this.#hand(Buffer.concat(this.#ready));
  }

  async #writeBatch(): Promise<void> {
    const batch = this.#batch;
    [this.#batch, this.#batchBytes] = [[], 0];
    const { placed, signal } = this.#of;
    const isDatabase = ({ content }: Entry): boolean => placed?.of(content) !== undefined;
    const ids = batch.flatMap((each) => (isDatabase(each) ? [] : [each.content]));
    const contents = pieces(this.#session, Buffer.concat(ids), signal);
    try {
      for (const each of batch) {
        const { header, path, node, content } = each;
        await this.#put(header);
        if (content.length === 0) continue;
        const own = isDatabase(each) ? piecesOf(this.#session, { content, placed }, signal) : contents;
        let size = 0;
        for (let left = isDatabase(each) ? Infinity : content.length / 32; left > 0; left--) {
          const { value, done } = await own.next();
          if (done === true) break;
          size += value.length;
          // More bytes than the header's size would overwrite the next entry.
          if (size > node.size) break;
          await this.#put(value);
        }
        if (size !== node.size)
          throw new CairnError(
            "damaged",
            `${quotedPath(path)} had ${node.size} bytes when it was saved, but the snapshot holds a different number`,
          );
        await this.#put(tarPadding(size));
      }
    } finally {
      await contents.return(undefined);
    }
  }

  async #put(bytes: Uint8Array): Promise<void> {
    this.#ready.push(bytes);
    this.#readyBytes += bytes.length;
    if (this.#readyBytes < PIECE_BYTES) return;
    const whole = Buffer.concat(this.#ready);
    [this.#ready, this.#readyBytes] = [[], 0];
    await this.#hand(whole);
  }
}
