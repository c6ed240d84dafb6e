/**
 * The part of WebAssembly that the kernels need. Kernels are for what a command does once for each of many entries: a
 * command is over before a compiler has made the same in JavaScript fast. The type library that has these names would
 * bring the browser's globals along.
 */

/** Memory that several threads see. */
export interface SharedMemory {
  readonly buffer: SharedArrayBuffer;
}

interface WebAssemblyApi {
  readonly Memory: new (limits: { initial: number; maximum: number; shared: true }) => SharedMemory;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object, imports: object) => { readonly exports: object };
}

const api = (globalThis as unknown as { WebAssembly: WebAssemblyApi }).WebAssembly;
const PAGE = 65_536;
const compiled = new Map<string, object>();

/** A memory of at least so many bytes, which never grows. */
export function newSharedMemory(bytes: number): SharedMemory {
  const pages = Math.ceil(bytes / PAGE);
  return new api.Memory({ initial: pages, maximum: pages, shared: true });
}

/** A new instance of a module in base64; its exports are what the module's source says. Compiled once per thread. */
export function newKernel<Exports extends object>(module: string, imports: object = {}): Exports {
  let code = compiled.get(module);
  if (code === undefined) compiled.set(module, (code = new api.Module(Buffer.from(module, "base64"))));
  return new api.Instance(code, imports).exports as Exports;
}
