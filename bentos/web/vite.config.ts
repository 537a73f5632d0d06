import { readFileSync } from "node:fs";
import { defineConfig } from "vite";

// React's licence is to go with every copy of it; react-dom and its scheduler have the same one.
const licence = readFileSync(new URL("node_modules/react/LICENSE", import.meta.url), "utf8");

// Names without hashes, since the service answers exactly these three; relative, since it may sit behind a prefix.
export default defineConfig({
  base: "./",
  build: {
    outDir: "../static",
    emptyOutDir: true,
    modulePreload: { polyfill: false },
    cssCodeSplit: false,
    rolldownOptions: {
      output: {
        entryFileNames: "page.js",
        assetFileNames: "page[extname]",
        postBanner: `/*! With React:\n${licence}*/`,
      },
    },
  },
});
