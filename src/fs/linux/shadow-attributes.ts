/**
 * xfs shows root each access list a second time, as its own attribute. A write to that attribute changes the list, on
 * xfs at once, and elsewhere after a copy to xfs. So only the list itself is read and written.
 */
const PREFIX = Buffer.from("trusted.SGI_ACL_");

/** True if an attribute of this name is the second form of an access list. */
export function isShadow(name: Uint8Array): boolean {
  return name.length > PREFIX.length && PREFIX.equals(name.subarray(0, PREFIX.length));
}

/**
 * Removes the names that `isShadow` accepts from a list of NUL-terminated names. Returns the new length, or a negative
 * `length` unchanged.
 */
export function withoutShadows(length: number, list: Uint8Array): number {
  if (length <= 0) return length;
  if (!Buffer.from(list.buffer, list.byteOffset, length).includes(PREFIX)) return length;
  let kept = 0;
  for (let at = 0; at < length;) {
    const end = list.indexOf(0, at) + 1;
    if (!isShadow(list.subarray(at, end - 1))) {
      list.copyWithin(kept, at, end);
      kept += end - at;
    }
    at = end;
  }
  return kept;
}
