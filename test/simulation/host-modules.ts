import { registerHooks } from "node:module";
import type * as copy from "../../src/backup/care/copy.ts";
import type * as forget from "../../src/backup/care/forget.ts";
import type * as prune from "../../src/backup/care/prune.ts";
import type * as create from "../../src/backup/create/create-from-stream.ts";
import type * as open from "../../src/backup/open/open-repository.ts";

/**
 * The modules of a host's process. Locks, for example, know the locks of their own process by a variable of their module, so
 * each simulated process has its own copy of the modules that deal with locks. All share the others.
 */

const OWN = /\/src\/(?:repository\/(?:locks|lock-state|care\/.+)|backup\/.+)\.ts$/;

registerHooks({
  resolve(specifier, context, next) {
    const found = next(specifier, context);
    const host = /\?host=\d+$/.exec(context.parentURL ?? "")?.[0];
    return host === undefined || !OWN.test(found.url) ? found : { ...found, url: `${found.url}${host}` };
  },
});

const importOf = async <T>(path: string, host: number): Promise<T> =>
  (await import(`${new URL(`../../src/${path}`, import.meta.url).href}?host=${host}`)) as T;

export interface HostModules {
  open: typeof open;
  create: typeof create;
  forget: typeof forget;
  prune: typeof prune;
  copy: typeof copy;
}

const loaded: Promise<HostModules>[] = [];

/** Returns the copy of the modules with this number. A copy is made once in this process. */
export function hostModules(host: number): Promise<HostModules> {
  return (loaded[host] ??= load(host));
}

async function load(host: number): Promise<HostModules> {
  return {
    open: await importOf("backup/open/open-repository.ts", host),
    create: await importOf("backup/create/create-from-stream.ts", host),
    forget: await importOf("backup/care/forget.ts", host),
    prune: await importOf("backup/care/prune.ts", host),
    copy: await importOf("backup/care/copy.ts", host),
  };
}
