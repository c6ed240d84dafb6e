import { lstatSync, readlinkSync } from "node:fs";
import { basename, dirname } from "node:path";
import {
  EXCHANGE_JOURNAL,
  FOLDER_JOURNAL,
  readExchangeIntent,
  readFolderIntent,
} from "../../workspace/points/journals.ts";
import type { Inspected } from "./inspected.ts";

/** Decoders of running operations that a workspace's journal records as a link's target, by the link's name. */
const INTENTS: Record<string, (journal: string) => Inspected | null> = {
  [EXCHANGE_JOURNAL](journal) {
    const intent = readExchangeIntent(journal);
    if (intent === null) return null;
    const { undoId, ...content } = intent;
    return { format: "exchange-intent", version: 1, content: { ...content, undo_id: undoId } };
  },
  [FOLDER_JOURNAL](journal) {
    const content = readFolderIntent(journal);
    return content && { format: "folder-intent", version: 1, content };
  },
};

/** Decodes an intent link. Null if there is no such link. Throws `damaged` if it cannot be decoded. */
export function inspectIntentLink(path: string): (Inspected & { bytes: number }) | null {
  const read = Object.hasOwn(INTENTS, basename(path)) ? INTENTS[basename(path)] : undefined;
  if (read === undefined || lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() !== true) return null;
  const inspected = read(dirname(path));
  return inspected && { ...inspected, bytes: Buffer.byteLength(readlinkSync(path)) };
}
