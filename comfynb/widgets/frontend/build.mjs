/**
 * Builds ../static: the bundle, its licences, and BUILD.json, which says from what it was built.
 *
 * The bundle is committed, so that nobody needs Node to use or to install comfynb. A test without
 * Node compares BUILD.json with the sources; where Node is, building again gives the same bytes.
 */

import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, version } from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const STATIC = join(HERE, "..", "static");

const { metafile } = await build({
  absWorkingDir: HERE,
  entryPoints: { scene_grid: "index.tsx", styles: "styles.css" },
  outdir: STATIC,
  write: false,
  bundle: true,
  format: "esm",
  target: ["es2022", "chrome123", "firefox121", "safari17.5"],
  supported: { nesting: false },
  minify: true,
  charset: "utf8",
  legalComments: "none", // LICENSES.txt has them in full
  jsx: "automatic",
  jsxImportSource: "preact",
  metafile: true,
  logLevel: "warning",
}).then((result) => {
  const [script, styles] = ["scene_grid.js", "styles.css"].map((name) =>
    result.outputFiles.find((file) => file.path.endsWith(name)),
  );
  write("scene_grid.js", script.text);
  write("scene_grid.css", styles.text);
  return result;
});

write("LICENSES.txt", licences(metafile));
write(
  "BUILD.json",
  `${JSON.stringify(
    {
      esbuild: version,
      sources: hashes(HERE, sources()),
      outputs: hashes(STATIC, ["LICENSES.txt", "scene_grid.css", "scene_grid.js"]),
    },
    null,
    2,
  )}\n`,
);

/** Return every file that the bundle depends on, sorted. */
function sources() {
  return readdirSync(HERE)
    .filter((name) => /\.(tsx?|css|mjs|json)$/.test(name))
    .sort();
}

function hashes(folder, names) {
  return Object.fromEntries(
    names.map((name) => [
      name,
      createHash("sha256")
        .update(readFileSync(join(folder, name)))
        .digest("hex"),
    ]),
  );
}

/** Return the licences of the packages whose code is in the bundle. */
function licences({ inputs }) {
  const packages = new Set(
    Object.keys(inputs).flatMap(
      (path) => path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1] ?? [],
    ),
  );
  return [...packages]
    .sort()
    .map((name) => {
      const folder = join(HERE, "node_modules", name);
      const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
      const text = readFileSync(join(folder, "LICENSE"), "utf8").trim();
      return `${name} ${version} (${license})\n\n${text}\n`;
    })
    .join(`\n${"-".repeat(72)}\n\n`);
}

function write(name, text) {
  writeFileSync(join(STATIC, name), text);
}
