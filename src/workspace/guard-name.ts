/**
 * Guards that can be overridden by name (`--allow NAME`): `home` a home directory, `nested` inside or above another workspace,
 * `git` inside a `.git`, `space` less free space than the estimate, `holders` (of a conversion) that what other processes have open cannot be known. `/`, `/.cairn` and a control directory cannot.
 */
export type GuardName = "home" | "nested" | "git" | "space" | "holders";
