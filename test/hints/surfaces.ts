/**
 * Cases of the command's table that a program or an agent meets, too: the calls instead of the commands. The lines that
 * bring a situation about are those of the command's case.
 */
export interface SurfaceCase {
  /** That of the command's case. */
  reason: string;
  /** The folder of the workspace, if another than that of the command's lines. */
  within?: string;
  /** The call that fails. `home`: the case's home directory; ids that earlier lines printed are variables, too. */
  fails: string;
  /** The call as the hint writes it; `ID` stands for any id. */
  follow?: string;
  /** Values for words of `follow`, as a program writes them. */
  where?: Readonly<Record<string, string>>;
  /** An option or value that the hint names, for `back`. */
  option?: string;
  /** True if the message itself names the way. */
  isInMessage?: boolean;
  /** Calls that do what the hint says in words, or that show the good end. */
  back?: string;
  /** The command that the hint gives a person, if no tool of agents does this. */
  person?: string;
}

/** Over HTTP, by the package's client. */
export const CALLS: readonly SurfaceCase[] = [
  {
    reason: "no point has this id",
    fails: `restore({ target: "00000000" })`,
    follow: "history()",
    back: `restore({ target: "good" })`,
  },
  {
    reason: "there are not so many points before head",
    fails: `restore({ target: "head~9" })`,
    option: "head~1",
    back: `restore({ target: "head~1" })`,
  },
  {
    reason: "the time is before the first point",
    fails: `restore({ target: "2020-01-01" })`,
    option: "ID",
    back: `restore({ target: "good" })`,
  },
  {
    reason: "nothing was saved yet",
    fails: `restore({ target: "latest" })`,
    follow: "save()",
    back: `restore({ target: "latest" })`,
  },
  {
    reason: "the path is not in the point",
    fails: `restore({ target: "latest", paths: ["nope"] })`,
    follow: "why(path)",
    where: { path: `"b"` },
    back: `restore({ target: "latest", paths: ["b"] })`,
  },
  {
    reason: "the file to read is not in the point",
    fails: `show("good", "b")`,
    follow: "show(point)",
    where: { point: `"good"` },
    back: `show("good", "a")`,
  },
  {
    reason: "the point does not have the tag",
    fails: `tag("good", { remove: ["bad"] })`,
    option: "good",
    back: `tag("good", { remove: ["good"] })`,
  },
  {
    reason: "the word cannot be a point",
    fails: `restore({ target: "what it was" })`,
    follow: "history()",
    back: `restore({ target: "good" })`,
  },
  {
    reason: "too few digits of an id",
    fails: `restore({ target: "f" })`,
    follow: "history()",
    back: `restore({ target: "good" })`,
  },
  {
    reason: "the chosen id has another meaning",
    fails: `save({ id: "latest" })`,
    back: `save({ id: "the-latest" })`,
  },
  {
    reason: "an id is wanted, and a word with other characters is given",
    fails: `save({ id: "my id" })`,
    back: `save({ id: "my-id" })`,
  },
  {
    reason: "the chosen id is another point's",
    fails: `save({ id: "good" })`,
    follow: `show("good")`,
    back: `save({ id: "better" })`,
  },
  {
    reason: "the word is not the id of a view",
    fails: `closeView("nope")`,
    follow: "listViews()",
    back: `closeView(view_id)`,
  },
  {
    reason: "two points have the tag",
    fails: `restore({ target: "good" })`,
    follow: "history()",
    back: `restore({ target: save_point_id })`,
  },
  { reason: "nothing was restored", fails: `undo()`, follow: "history()", back: `restore({ target: "good" })` },
  { reason: "nothing was undone", fails: `redo()`, follow: "operations()" },
  { reason: "everything is undone", fails: `undo()`, follow: "redo()" },
  {
    reason: "the folder is based on an older point, and the caller refuses that",
    fails: `save({ onDetached: "refuse" })`,
    option: "onDetached",
    back: `restore({ target: "latest" }); save({ onDetached: "refuse" })`,
  },
  {
    reason: "the new folder of a fork is not empty",
    fails: `fork("good", home + "/docs")`,
    back: `fork("good", home + "/attempt")`,
  },
  {
    reason: "a workspace has the name",
    fails: `fork("good", home + "/attempt", { name: "main" })`,
    option: "name",
    back: `fork("good", home + "/attempt", { name: "attempt" })`,
  },
  {
    reason: "a restore with --to leads into the workspace",
    fails: `restore({ target: "good", to: home + "/docs/old" })`,
    option: "to",
    back: `restore({ target: "good", to: home + "/old" })`,
  },
  {
    reason: "the point to remove is head",
    fails: `runCleanup({ only: ["bad"] })`,
    back: `save(); runCleanup({ only: ["bad"] })`,
  },
  {
    reason: "the point to remove is pinned",
    fails: `runCleanup({ only: ["good"] })`,
    follow: `unpin("ID")`,
    back: `runCleanup({ only: ["good"] })`,
  },
  {
    reason: "a view holds the path that is to be removed",
    fails: `removePaths({ paths: ["b"] })`,
    follow: `closeView("ID")`,
    back: `removePaths({ paths: ["b"] })`,
  },
  {
    reason: "a view of the points is open",
    fails: `release({ deletePoints: true })`,
    follow: "listViews()",
    back: `closeView(view_id)`,
  },
  {
    reason: "the folder changed since the plan was made",
    fails: `restore({ target: "good", plan: plan_id })`,
    back: `planRestore({ target: "good" }); restore({ target: "good", plan: plan_id })`,
  },
  {
    reason: "the word is not the id of a plan",
    fails: `restore({ target: "good", plan: "123" })`,
    option: "plan",
    back: `restore({ target: "good", plan: plan_id })`,
  },
  {
    reason: "the rules of a cleanup would keep other points now",
    fails: `runCleanup({ retention: { keepLast: 1 }, plan: plan_id })`,
    back: `previewCleanup({ retention: { keepLast: 1 } }); runCleanup({ retention: { keepLast: 1 }, plan: plan_id })`,
  },
  {
    reason: "a tag cannot be a word that names points",
    fails: `tag("good", { add: ["head"] })`,
    back: `tag("good", { add: ["v-head"] })`,
  },
  {
    reason: "no hook of an agent has saved a turn",
    fails: `rewind()`,
    follow: "turns()",
  },
  {
    reason: "the path is in neither of two states",
    fails: `diff("good", "latest", { paths: ["nope"] })`,
    isInMessage: true,
    back: `diff("good", "latest", { paths: ["a"] })`,
  },
  {
    reason: "a socket cannot be in a tar file",
    fails: `exportPoint("socket", home + "/good.tar", { asTar: true })`,
    back: `exportPoint("socket", home + "/good")`,
  },
  {
    reason: "the file of an export exists",
    fails: `exportPoint("good", home + "/good.tar", { asTar: true })`,
    back: `exportPoint("good", home + "/good-2.tar", { asTar: true })`,
  },
  {
    reason: "there is no export directory",
    fails: `importDirectory(home + "/exprt", home + "/new")`,
    isInMessage: true,
    back: `importDirectory(home + "/export", home + "/new")`,
  },
  {
    reason: "an export directory was changed",
    fails: `importDirectory(home + "/copy", home + "/new")`,
    isInMessage: true,
    back: `importDirectory(home + "/export", home + "/new")`,
  },
  {
    reason: "the path lies outside the workspace",
    fails: `why("../docs-2/a")`,
    back: `why("a")`,
  },
  {
    reason: "the time cannot be read",
    fails: `history(undefined, 9, { since: "soon" })`,
    option: "yesterday",
    back: `history(undefined, 9, { since: "yesterday" })`,
  },
  {
    reason: "a bracket in a pattern has no end",
    fails: `findNames("[")`,
    option: "\\[",
    back: `findNames("\\\\[")`,
  },
  {
    reason: "a pattern for removals fits every path",
    fails: `removePaths({ paths: ["*"] })`,
    isInMessage: true,
    back: `removePaths({ paths: ["b"] })`,
  },
  {
    reason: "an option is one of a few words",
    fails: `restore({ target: "good", method: "slow" })`,
    isInMessage: true,
    option: "entries",
    back: `restore({ target: "good", method: "entries" })`,
  },
  {
    reason: "the option does not exist",
    fails: `save({ mesage: "x" })`,
    isInMessage: true,
    option: "message",
    back: `save({ message: "x" })`,
  },
  {
    reason: "the file system clones no files",
    fails: `setEngine("reflink-copy")`,
    back: `setEngine("copy")`,
  },
  {
    reason: "the store would exceed its quota",
    fails: `save()`,
    follow: `setPolicy({ quotaBytes })`,
    where: { quotaBytes: "quotaBytes: 1048576" },
    back: `save()`,
  },
  {
    reason: "the folder was never saved",
    fails: `open(home + "/docs")`,
    option: "openOrInit",
    back: `openOrInit(home + "/docs"); open(home + "/docs")`,
  },
  {
    reason: "no folder has this name",
    fails: `open(home + "/dosc")`,
    option: "open",
    back: `open(home + "/docs")`,
  },
  {
    reason: "the folder is a workspace already",
    fails: `init(home + "/docs")`,
    follow: "status()",
  },
  {
    reason: "a workspace lies in the folder, and both are wanted",
    fails: `openOrInit(home + "/src")`,
    option: "nested",
    back: `openOrInit(home + "/src", { allow: ["nested"] })`,
  },
  {
    reason: "the folder lies in a .git directory",
    fails: `openOrInit(home + "/src/.git/docs")`,
    option: "git",
    back: `openOrInit(home + "/src/.git/docs", { allow: ["git"] })`,
  },
  {
    reason: "the folder is the root of the system",
    fails: `openOrInit("/")`,
    back: `openOrInit(home + "/docs")`,
  },
  {
    reason: "the folder is not on a disk",
    fails: `openOrInit("/proc")`,
    back: `openOrInit(home + "/docs")`,
  },
  {
    reason: "the name of a workspace has other characters",
    fails: `init(home + "/docs", { name: "my docs" })`,
    back: `init(home + "/docs", { name: "my-docs" })`,
  },
  {
    reason: "the engine does not work in this folder",
    fails: `init(home + "/docs", { engineType: "juicefs-clone" })`,
    back: `init(home + "/docs")`,
  },
  {
    reason: "no workspace was at the old path",
    fails: `relocate(home + "/doc", home + "/papers")`,
    follow: "listWorkspaces()",
    back: `relocate(home + "/docs", home + "/papers")`,
  },
  {
    reason: "the folder to relocate is still at its old path",
    fails: `relocate(home + "/docs", home + "/papers")`,
    back: `relocate(home + "/docs", home + "/papers")`,
  },
  {
    reason: "the workspace's folder was deleted",
    within: "docs",
    fails: `status()`,
    follow: `restore({ target: "latest" })`,
    back: `status()`,
  },
];

/**
 * Over MCP, as an agent calls the tools: hints that name another way than over HTTP, or arguments of tools, and one that names the
 * same call. A hint that a program gets is the same text.
 */
export const AGENT_CALLS: readonly SurfaceCase[] = [
  {
    reason: "no point has this id",
    fails: `restore({ target: "00000000" })`,
    follow: "history()",
    back: `restore({ target: "good" })`,
  },
  {
    reason: "nothing was saved yet",
    fails: `restore({ target: "latest" })`,
    follow: "save()",
    back: `restore({ target: "latest" })`,
  },
  {
    reason: "the folder was never saved",
    within: "docs",
    fails: "status()",
    option: "save",
    back: "save()",
  },
  {
    reason: "the path is not in the point",
    fails: `restore({ target: "latest", paths: ["nope"] })`,
    follow: "why(path)",
    where: { path: `{ path: "b" }` },
    back: `restore({ target: "latest", paths: ["b"] })`,
  },
  {
    reason: "the file to read is not in the point",
    fails: `show({ target: "good", path: "b" })`,
    follow: "show(point)",
    where: { point: `{ target: "good" }` },
    back: `show({ target: "good", path: "a" })`,
  },
  { reason: "everything is undone", fails: "undo()", person: "cairn redo" },
  {
    reason: "the folder changed since the plan was made",
    fails: `restore({ target: "good", plan: plan_id })`,
    back: `restore({ target: "good" })`,
  },
  {
    reason: "the option does not exist",
    fails: `save({ mesage: "x" })`,
    isInMessage: true,
    option: "message",
    back: `save({ message: "x" })`,
  },
  {
    reason: "the command does not exist",
    fails: "stauts()",
    option: "status",
    back: "status()",
  },
  {
    reason: "a cause is not JSON",
    fails: `save({ cause: { kind: "person" } })`,
    option: `{"kind":"tool_call","tool":"bash"}`,
    back: `save({ cause: { kind: "tool_call", tool: "bash" } })`,
  },
  {
    reason: "the store would exceed its quota",
    fails: "save()",
    person: "cairn cleanup policy --quota 1MiB",
    back: "save()",
  },
  {
    reason: "the workspace's folder was deleted",
    within: "docs",
    fails: "status()",
    person: "cairn -C ~/docs restore latest",
    back: "status()",
  },
  {
    reason: "the path is the whole workspace",
    fails: `why({ path: "." })`,
    follow: "history()",
    back: `why({ path: "a" })`,
  },
];
