import path from "node:path";
import { defineConfig } from "vite";

const CLIENT = path.resolve(import.meta.dirname, "../src/client-browser.ts");

export default defineConfig({
  root: import.meta.dirname,
  base: "/",
  // The content security policy allows no inline code and no data address but for images.
  build: {
    outDir: path.resolve(import.meta.dirname, "../dist/page"),
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    reportCompressedSize: false,
  },
  resolve: { alias: { "cairnstate/client": CLIENT } },
});
