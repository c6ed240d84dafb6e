// The same without native calls, by way of /proc. The modules look when they are loaded.
process.env["CAIRN_NO_NATIVE"] = "1";
await import("./remove-below.test.ts");
