/** Values of calls as JSON between processes. Bytes are objects with one member; other values are plain JSON. */

/** The only member of an object that stands for bytes, in base64. */
export const BYTES = "$b64";

/** The JSON of a value on one line. */
export function toWire(value: unknown): string {
  return JSON.stringify(value, (_key, each: unknown) => {
    if (each instanceof Uint8Array) return { [BYTES]: Buffer.from(each).toString("base64") };
    // At this point JSON.stringify has already turned a Buffer into an object.
    const { type, data } = (each ?? {}) as { type?: unknown; data?: unknown };
    return type === "Buffer" && Array.isArray(data)
      ? { [BYTES]: Buffer.from(data as number[]).toString("base64") }
      : each;
  });
}

/** Parses such JSON. Throws `SyntaxError`. */
export function fromWire(text: string): unknown {
  return JSON.parse(text, (_key, each: unknown) => {
    if (typeof each !== "object" || each === null) return each;
    const { [BYTES]: bytes } = each as Record<string, unknown>;
    return typeof bytes === "string" && Object.keys(each).length === 1 ? Buffer.from(bytes, "base64") : each;
  }) as unknown;
}
