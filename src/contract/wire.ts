/** Values of calls as JSON between processes: bytes are objects with one member, all else is as it is. */

/** The one member of an object that stands for bytes, in base64. */
export const BYTES = "$b64";

/** The JSON of a value on one line. */
export function toWire(value: unknown): string {
  return JSON.stringify(value, (_key, each: unknown) => {
    if (each instanceof Uint8Array) return { [BYTES]: Buffer.from(each).toString("base64") };
    // A Buffer has made an object of itself by now.
    const { type, data } = (each ?? {}) as { type?: unknown; data?: unknown };
    return type === "Buffer" && Array.isArray(data)
      ? { [BYTES]: Buffer.from(data as number[]).toString("base64") }
      : each;
  });
}

/** The value of such JSON. Throws `SyntaxError`. */
export function fromWire(text: string): unknown {
  return JSON.parse(text, (_key, each: unknown) => {
    if (typeof each !== "object" || each === null) return each;
    const { [BYTES]: bytes } = each as Record<string, unknown>;
    return typeof bytes === "string" && Object.keys(each).length === 1 ? Buffer.from(bytes, "base64") : each;
  }) as unknown;
}
