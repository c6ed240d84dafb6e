/** Commands that the page has a view or a button for. */
const OWN = new Set(
  "adopt cleanup diff fork history operations redo restore rewind save show status turns undo".split(" "),
);

/**
 * Returns the clauses of a hint that help on the page; null if there are none. Leaves out a clause that names an option,
 * or a command that the page has its own way for. A clause with another command, for example `cairn ui`, stays whole.
 */
export function pageHint(hint: string): string | null {
  const clauses = hint.split("; ").filter((clause) => {
    const commands = [...clause.matchAll(/`cairn ([a-z]+)/g)].map(([, name]) => name!);
    return commands.length > 0 ? commands.some((name) => !OWN.has(name)) : !/(^|[\s(`])--[a-z]/.test(clause);
  });
  return clauses.length === 0 ? null : clauses.join("; ");
}
