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
