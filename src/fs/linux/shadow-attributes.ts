/**
 * xfs shows each access list to root a second time, as an attribute of its own. Where that is written it becomes the
 * list, on xfs at once, and elsewhere when it gets there; so only the list itself is read and written.
 */
const PREFIX = Buffer.from("trusted.SGI_ACL_");

/** Tells whether an attribute of this name is an access list shown a second time. */
export function isShadow(name: Uint8Array): boolean {
  return name.length > PREFIX.length && PREFIX.equals(name.subarray(0, PREFIX.length));
}

/** Takes such names out of a list of names, each with a NUL behind it; its new length. What is no length stays as it is. */
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
