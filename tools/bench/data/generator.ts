/** Deterministic bytes that compress about as well as real source trees do. */

/** xorshift32: fast, the same everywhere. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0 || 0x9e3779b9;
  }

  /** An integer of 32 bits. */
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }

  /** An integer from `low` up to and without `high`. */
  between(low: number, high: number): number {
    return low + (this.next() % (high - low));
  }

  fill(target: Uint8Array): void {
    const words = new Uint32Array(target.buffer, target.byteOffset, target.byteLength >>> 2);
    for (let i = 0; i < words.length; i++) words[i] = this.next();
    for (let i = words.length * 4; i < target.length; i++) target[i] = this.next();
  }
}

const SYLLABLES = "ar be con de ex fi gro ha in jo ka lo me no or pa qui re sa te un ver wo xe ya zo".split(" ");
const LINES: readonly ((word: () => string, random: Random) => string)[] = [
  (word, random) => `  const ${word()} = ${word()}.${word()}(${word()}, ${random.between(0, 100_000)});`,
  (word) => `  if (${word()}.${word()} !== ${word()}) return ${word()};`,
  (word) => `import { ${word()}, ${word()} } from "./${word()}-${word()}.js";`,
  (word) => `  // ${word()} ${word()} ${word()} ${word()} ${word()} ${word()}`,
  (word, random) =>
    `  "${word()}": { "${word()}": ${random.between(0, 1_000_000)}, "${word()}": "${word()}_${random.next().toString(36)}" },`,
  (word) => `export function ${word()}${word()}(${word()}, ${word()}) {`,
  () => "}",
  (word, random) => `    throw new Error("${word()} ${word()} ${random.next().toString(16)}");`,
];

/** `length` bytes that read like source code; a 4 KiB piece shrinks to about 0.4 with zstd. */
export function sourceText(length: number, seed: number): Buffer {
  const random = new Random(seed);
  const vocabulary = Array.from({ length: 6000 }, () =>
    Array.from({ length: random.between(2, 5) }, () => SYLLABLES[random.between(0, SYLLABLES.length)]).join(""),
  );
  // A few words are common and most are rare, as in real text.
  const word = (): string => {
    const rank = Math.floor(6000 * (random.next() / 2 ** 32) ** 4);
    return vocabulary[rank] ?? "end";
  };
  const bytes = Buffer.allocUnsafe(length);
  for (let at = 0; at < length;) {
    const line = LINES[random.between(0, LINES.length)];
    at += bytes.write(`${line?.(word, random)}\n`, at, "latin1");
  }
  return bytes;
}
