import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import path from "node:path";
import { Random, sourceText } from "./generator.ts";

const BLOCK = 1 << 20;

/** Makes one file: half of its mebibytes are text, a third random, the rest zeros and repetitions of earlier text. */
export function makeBigFile(folder: string, bytes: number): void {
  mkdirSync(folder, { recursive: true });
  const random = new Random(77);
  const text = sourceText(64 * BLOCK, 11);
  const block = Buffer.alloc(BLOCK);
  const fd = openSync(path.join(folder, "disk.img"), "w");
  try {
    for (let at = 0; at < bytes; at += BLOCK) {
      const kind = random.between(0, 100);
      if (kind < 55) fillText(block, text, random);
      else if (kind < 90) random.fill(block);
      else if (kind < 95) block.fill(0);
      else text.copy(block, 0, 0, BLOCK);
      writeSync(fd, block, 0, Math.min(BLOCK, bytes - at));
    }
  } finally {
    closeSync(fd);
  }
}

/** Fills a block with shuffled pieces of 16 KiB, so that its text is not simply the corpus once more. */
function fillText(block: Buffer, text: Buffer, random: Random): void {
  const piece = 16 << 10;
  for (let at = 0; at < block.length; at += piece) {
    const start = random.between(0, text.length - piece);
    text.copy(block, at, start, start + piece);
  }
}
