import { expect, test } from 'vitest';
import { createApiMetrics } from './metrics.ts';

test('a logout that is lost is seen to rise, also the first one', async () => {
  const text = await createApiMetrics().registry.metrics();
  for (const outcome of ['kept', 'lost', 'appended'])
    expect(text).toContain(`realtime_kept_records_total{outcome="${outcome}"} 0\n`);
  for (const labels of [
    'outcome="invalid_logout_token",reason="audience"',
    'outcome="rate_limited",reason="address"',
    'outcome="store_unavailable",reason="key_not_known_yet"',
  ])
    expect(text).toContain(`realtime_requests_total{operation="backchannel_logout",${labels}} 0\n`);
});
