import { CopyEngine } from "./engines/copy/copy-engine.ts";
import { btrfsHolder } from "./engines/tree/btrfs-holder.ts";
import { juicefsHolder } from "./engines/tree/juicefs-holder.ts";
import { reflinkHolder } from "./engines/tree/reflink-holder.ts";
import type { TreeHolder } from "./engines/tree/holder.ts";
import type { CairnLibrary } from "./operations/contract.ts";
import { Library } from "./operations/library.ts";
import type { EngineFactory } from "./workspace/workspace.ts";

/** Which engine holds the points of a workspace. The only place that names concrete ones. */
const engineFor: EngineFactory = (found, options) =>
  new CopyEngine({ control: found.control.root, holder: holderFor(found.controlFile.engine), ...options });

function holderFor(engine: string): TreeHolder | null {
  if (engine === "btrfs-snapshot") return btrfsHolder();
  if (engine === "juicefs-clone") return juicefsHolder();
  if (engine === "reflink-copy") return reflinkHolder();
  return null;
}

/** The library, wired to this build's engines. */
export async function openLibrary(): Promise<CairnLibrary> {
  return new Library(engineFor);
}
