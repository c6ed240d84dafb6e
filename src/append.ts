/** Adds a list to another list. `push(...list)` fails beyond some 120 000 members, because each is an argument on the stack. */
export function append<T>(into: T[], list: Iterable<T>): void {
  for (const each of list) into.push(each);
}
