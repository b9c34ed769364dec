import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { trackedFiles } from './tracked-files.ts';

const root = new URL('../', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8');
const page = (path: string): string => read(`docs/${path}`);

/** A histogram's series count as the histogram. */
const metricNames = (text: string): string[] =>
  [...text.matchAll(/(?<!schema `|if exists )\b(?:realtime|kafka)_[a-z_]+/g)].map(([name]) =>
    name.replace(/_(?:bucket|count|sum)$/, ''),
  );

const sources = ['packages/*/src/*.ts', 'services/*/src/*.ts']
  .flatMap(trackedFiles)
  .filter((path) => !path.endsWith('.test.ts'))
  .map(read)
  .join('\n');

test('the runbook names no metric that is not there', () => {
  const known = new Set(metricNames(page('reference/api.md') + page('reference/room-worker.md')));
  const named = metricNames(page('runbook.md'));
  expect(named.length).toBeGreaterThan(5);
  expect(named.filter((name) => !known.has(name))).toEqual([]);
});

test('the runbook has a row for each failure of ours, at the desk and at the gate', () => {
  const codes = [...page('reference/problems.md').matchAll(/^\| 5\d\d \| `(\w+)`/gm)].map(([, code = '']) => code);
  expect(codes.length).toBeGreaterThan(2);
  const rows = page('runbook.md').match(/^\| `realtime_requests_total\{operation=~"join\\\|gate".*$/gm) ?? [];
  expect(codes.filter((code) => !rows.some((row) => row.split('}')[0]?.includes(code)))).toEqual([]);
});

test('the runbook asks for no value of a label that nothing counts', () => {
  const matchers = [...page('runbook.md').matchAll(/[{,](?!le=)\w+=~?"([^"]+)"/g)];
  const values = matchers.flatMap(([, value = '']) => value.split('\\|'));
  expect(values.length).toBeGreaterThan(5);
  expect(values.filter((value) => !new RegExp(`'${value}'|\\b${value}:`).test(sources))).toEqual([]);
});

/** What is typed, a metric, or what PostgreSQL says. */
const isOthers = (text: string): boolean =>
  /^(?:--|(?:realtime|npm|select|update|drop|kafka-transactions|redis-cli|canceling|cached)\b)|\{/.test(text);

test('what the runbook quotes is what the programs say', () => {
  const quoted = [...page('runbook.md').matchAll(/`([^`\n]+)`/g)].map(([, text = '']) => text);
  const sentences = quoted.filter((text) => text.includes(' ') && !isOthers(text));
  expect(sentences.length).toBeGreaterThan(10);
  const pieces = sentences.flatMap((text) => text.split(/…|\d[\d,]*/).map((piece) => piece.trim()));
  expect(pieces.filter((piece) => !sources.includes(piece))).toEqual([]);
});
