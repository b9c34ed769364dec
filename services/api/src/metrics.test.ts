import { expect, test } from 'vitest';
import { createApiMetrics, watchState } from './metrics.ts';

test('a logout that is lost is seen to rise, also the first one', async () => {
  const text = await createApiMetrics().registry.metrics();
  for (const outcome of ['kept', 'lost', 'appended'])
    expect(text).toContain(`realtime_kept_records_total{outcome="${outcome}"} 0\n`);
  for (const labels of [
    'outcome="invalid_logout_token",reason="algorithm"',
    'outcome="invalid_logout_token",reason="audience"',
    'outcome="invalid_logout_token",reason="claims"',
    'outcome="invalid_logout_token",reason="expired"',
    'outcome="invalid_logout_token",reason="header"',
    'outcome="invalid_logout_token",reason="invalid"',
    'outcome="invalid_logout_token",reason="not_yet_valid"',
    'outcome="rate_limited",reason="address"',
    'outcome="store_unavailable",reason="key_not_known_yet"',
  ])
    expect(text).toContain(`realtime_requests_total{operation="backchannel_logout",${labels}} 0\n`);
});

test('a fault of ours is seen to rise, also the first one', async () => {
  const text = await createApiMetrics().registry.metrics();
  for (const operation of ['join', 'gate'])
    expect(text).toContain(
      `realtime_requests_total{operation="${operation}",outcome="internal",reason="internal"} 0\n`,
    );
});

test('no lag is told while the ends of the log are not known', async () => {
  const { registry } = createApiMetrics();
  let isLogKnown = true;
  const partitions = () => [{ topic: 't', partition: 0, lag: 7n, ageMs: 1_000 }];
  const freshness = { partitions, isLogKnown: () => isLogKnown };
  watchState(registry, { freshness, keys: { ageMs: () => 0 }, consumerGroup: 'g' });
  const series = 'kafka_consumergroup_lag{consumergroup="g",topic="t",partition="0"} ';
  expect(await registry.metrics()).toContain(`${series}7\n`);
  isLogKnown = false;
  const text = await registry.metrics();
  expect(text).not.toContain(series);
  expect(text).toContain('realtime_projection_age_seconds{topic="t",partition="0"} 1\n');
});
