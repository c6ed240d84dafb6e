// The same without native calls: exclusive writes end otherwise then. The modules look when they are loaded.
process.env["CAIRN_NO_NATIVE"] = "1";
await import("./durable.test.ts");
