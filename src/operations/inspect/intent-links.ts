import { lstatSync, readlinkSync } from "node:fs";
import { basename, dirname } from "node:path";
import {
  CONVERT_JOURNAL,
  EXCHANGE_JOURNAL,
  FOLDER_JOURNAL,
  readConvertIntent,
  readExchangeIntent,
  readFolderIntent,
  readSealIntent,
  SEAL_JOURNAL,
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
  [CONVERT_JOURNAL](journal) {
    const intent = readConvertIntent(journal);
    if (intent === null) return null;
    // Nanoseconds exceed the numbers of JSON.
    const content = { ...intent, since: intent.since.toString(), made: intent.made.toString() };
    return { format: "conversion-intent", version: 1, content };
  },
  [FOLDER_JOURNAL](journal) {
    const content = readFolderIntent(journal);
    return content && { format: "folder-intent", version: 1, content };
  },
  [SEAL_JOURNAL](journal) {
    const intent = readSealIntent(journal);
    return intent && { format: "seal-intent", version: 1, content: { save_point_id: intent.id } };
  },
};

/** Decodes an intent link. Null if there is no such link. Throws `damaged` if it cannot be decoded. */
export function inspectIntentLink(path: string): (Inspected & { bytes: number }) | null {
  const read = Object.hasOwn(INTENTS, basename(path)) ? INTENTS[basename(path)] : undefined;
  if (read === undefined || lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() !== true) return null;
  const inspected = read(dirname(path));
  return inspected && { ...inspected, bytes: Buffer.byteLength(readlinkSync(path)) };
}
