// Writes the documents that follow from the schemas; with `--check` it only says which of them are stale, and exits 1.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { asyncApi } from './asyncapi.ts';
import { type JsonObject, jsonSchemas } from './json-schema.ts';
import { openApi } from './openapi.ts';
import { eventsReference, problemsReference } from './reference.ts';

const generated = fileURLToPath(new URL('../generated/', import.meta.url));
const reference = fileURLToPath(new URL('../../../docs/reference/', import.meta.url));

const json = (value: JsonObject): string => `${JSON.stringify(value, null, 2)}\n`;

const files = new Map([
  [`${generated}asyncapi.json`, json(asyncApi())],
  [`${generated}openapi.json`, json(openApi())],
  ...Object.entries(jsonSchemas()).map(([name, schema]): [string, string] => [
    `${generated}json-schema/${name}`,
    json(schema),
  ]),
  [`${reference}events.md`, eventsReference()],
  [`${reference}problems.md`, problemsReference()],
]);

const isStale = ([path, content]: readonly [string, string]): boolean =>
  !existsSync(path) || readFileSync(path, 'utf8') !== content;
const stale = [...files].filter(isStale);
const leftOver = existsSync(generated)
  ? readdirSync(generated, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => `${entry.parentPath.replace(/\/?$/, '/')}${entry.name}`)
      .filter((path) => !files.has(path))
  : [];

if (process.argv.includes('--check')) {
  for (const path of [...stale.map(([path]) => path), ...leftOver])
    console.error(`stale: ${relative(process.cwd(), path)}`);
  process.exitCode = stale.length + leftOver.length > 0 ? 1 : 0;
} else {
  for (const [path, content] of stale) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
  }
  for (const path of leftOver) rmSync(path);
}
