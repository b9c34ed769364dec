import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

const page = (path: string): string => readFileSync(new URL(`../docs/${path}`, import.meta.url), 'utf8');
/** A histogram's series count as the histogram. */
const metricNames = (text: string): string[] =>
  [...text.matchAll(/(?<!schema `)\b(?:realtime|kafka)_[a-z_]+/g)].map(([name]) =>
    name.replace(/_(?:bucket|count|sum)$/, ''),
  );

test('the runbook names no metric that is not there', () => {
  const known = new Set(metricNames(page('reference/api.md') + page('reference/room-worker.md')));
  const named = metricNames(page('runbook.md'));
  expect(named.length).toBeGreaterThan(5);
  expect(named.filter((name) => !known.has(name))).toEqual([]);
});
