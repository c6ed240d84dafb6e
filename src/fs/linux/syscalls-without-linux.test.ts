// The same with no more of the system's calls than macOS has. The modules look when they are loaded.
process.env["CAIRN_NO_NATIVE"] = "linux";
await import("./syscalls.test.ts");
