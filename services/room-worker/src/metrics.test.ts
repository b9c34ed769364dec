import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { createWorkerMetrics } from './metrics.ts';

test.each([
  'realtime_marks_answered_total{action="expired",reason="kick"}',
  'realtime_marks_answered_total{action="expired",reason="mute"}',
  'realtime_marks_answered_total{action="observed",reason="unknown_room"}',
  'realtime_marks_answered_total{action="observed",reason="not_ours"}',
  'realtime_records_misplaced_total{topic="realtime.room-events.v1"}',
  'realtime_records_misplaced_total{topic="realtime.livekit-webhooks.v1"}',
])('%s is seen to rise, also the first time', async (series) => {
  expect(await createWorkerMetrics().registry.metrics()).toContain(`${series} 0\n`);
});

const runbook = readFileSync(new URL('../../../docs/runbook.md', import.meta.url), 'utf8');

test.each([
  ['as it is written', (bound: string) => bound],
  ['as Prometheus keeps it from version 3 on', (bound: string) => bound.replace(/^(\d+)$/, '$1.0')],
])("each bucket that the runbook's expressions name is there, %s", async (_, keep) => {
  const text = await createWorkerMetrics().registry.metrics();
  const bounds = [...text.matchAll(/^realtime_removal_seconds_bucket\{le="(.+?)"\}/gm)].map(([, le = '']) => keep(le));
  const named = [...runbook.matchAll(/realtime_removal_seconds_bucket\{le=~?"(.+?)"\}/g)].map(([, le]) => le);
  expect(named.length).toBeGreaterThan(0);
  for (const le of named) expect(bounds.filter((bound) => new RegExp(`^(?:${le})$`).test(bound))).toHaveLength(1);
});
