// Bundles the pages into the package: node build.mjs [OUTPUT FOLDER]. The same sources give the same bytes.
import { build } from "esbuild";
import { readFile, copyFile, mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const out = process.argv[2] ?? here("../src/vaelid/serving/assets");

// KaTeX names each font in three formats; every browser that runs these pages takes the first.
const oneFormat = {
  name: "one font format",
  setup(bundle) {
    bundle.onLoad({ filter: /katex[\\/]dist[\\/]katex\.css$/ }, async ({ path }) => ({
      contents: (await readFile(path, "utf8")).replace(/,\s*url\([^)]*\.(?:woff|ttf)\)\s*format\([^)]*\)/g, ""),
      loader: "css",
    }));
  },
};

await build({
  entryPoints: { app: here("src/main.tsx") },
  outdir: out,
  bundle: true,
  format: "iife",
  minify: true,
  charset: "utf8",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  banner: { js: "/* vaelid, Apache-2.0. Contains Preact, Preact Signals and KaTeX, MIT: see LICENSES.txt */" },
  loader: { ".woff2": "file" },
  assetNames: "fonts/[name]",
  plugins: [oneFormat],
  logLevel: "warning",
});
await mkdir(out, { recursive: true });
await copyFile(here("src/icon.svg"), `${out}/icon.svg`);
await copyFile(here("src/LICENSES.txt"), `${out}/LICENSES.txt`);
