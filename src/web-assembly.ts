/**
 * The part of WebAssembly that the kernels need. A kernel does the work of a command that is done once per entry: most
 * commands end before V8 has optimized the same JavaScript. The type library with these names would add the browser's
 * globals.
 */

/** Memory that several threads share. */
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

/** Makes a memory of at least `bytes` bytes, which never grows. */
export function newSharedMemory(bytes: number): SharedMemory {
  const pages = Math.ceil(bytes / PAGE);
  return new api.Memory({ initial: pages, maximum: pages, shared: true });
}

/** Makes an instance of a module in base64; the module's source defines its exports. Compiled once per thread. */
export function newKernel<Exports extends object>(module: string, imports: object = {}): Exports {
  let code = compiled.get(module);
  if (code === undefined) compiled.set(module, (code = new api.Module(Buffer.from(module, "base64"))));
  return new api.Instance(code, imports).exports as Exports;
}
